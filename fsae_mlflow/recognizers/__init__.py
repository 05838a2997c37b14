"""Aligned face → template: every recognizer behind one interface, by one name.

    recognizer = load_recognizer("onnx:/models/w600k_r50.onnx")  # registry.py; the name is FAMILY or FAMILY:ARGUMENT
    templates = recognizer(faces)                                # RGB faces (0…1, batch × 3 × 112 × 112) → batch × d

To add a family, write one file here and one line in registry.py. The file has one function,

    def load_NAME(argument: str, card: RecognizerCard | None) -> Recognizer:
        network = ...                                           # an nn.Module: normalized images → batch × d
        weights = state_dict(read_checkpoint(argument), argument)
        load_exactly(network, weights, argument)
        card = card or RecognizerCard(name=..., template_width=..., licence=..., source=..., training_data=...)
        return Recognizer(network, with_digest(card, Path(argument)))

and the line is `"NAME": ("NAME:/path/weights.pt", load_NAME)`: how a user writes it, and the function. Write
`NAME[:…]` where the argument may be left out.

- `argument` is what follows the colon, "" where nothing does. The registry refuses a missing argument where the line's
  pattern starts with `NAME:`. All other mistakes are the function's to refuse: a UserError of one sentence that names
  the thing, the requirement and the value.
- `card` is the user's own, given or found beside the weights, and wins over the family's own; where it contradicts the
  weights, refuse it. Without one, make a card (card.py): terms of use and source, and whatever differs from 112 × 112
  RGB, (pixel − 127.5) / 127.5 and 512 values that are not L2-normalized. A wrong mean or channel order raises no
  error; it only lowers accuracy.
- `Recognizer` (base.py) does the rest: it resizes, swaps channels and normalizes as the card says, freezes the network
  in evaluation mode, and refuses templates that are not finite or have another width than the card's. The network must
  be differentiable, because images are optimized through it, and its template of a face must not depend on the batch.
- checkpoint.py reads weights. `read_checkpoint` reads safetensors, or torch's format without running code.
  `state_dict` takes the weights out of a wrapper. `load_exactly` refuses missing, unexpected and reshaped keys by name
  (filter or rename keys before it), so that no layer silently keeps random weights. `with_digest` puts the weights'
  SHA-256 on the card and refuses a card of other weights: template sets then say which weights made them.
- Import a heavy or optional library inside the function.

For the test, copy tests/recognizers/test_facenet.py: templates equal the original implementation's, gradients reach
the image (`gradient_share`), wrong weights are refused. `make check` and `make test` check the rest. Then measure the
recognizer with evaluate_lfw (if it misses its published accuracy, first suspect the card), and add a row to the table
of docs/recognizers.md.
"""
