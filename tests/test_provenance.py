"""Templates, SAEs and recognizers that do not belong together."""

import pytest

from fsae_mlflow.errors import UserError
from fsae_mlflow.provenance import Origin, require_same_recognizer

CARD = {"name": "a", "weights_sha256": "0" * 64, "input_size": 112, "channels": "rgb", "mean": [127.5] * 3, "notes": ""}


def test_the_digest_is_of_what_decides_a_template() -> None:
    one = Origin.of("templates", CARD)
    assert one.digest == Origin.of("sae", CARD | {"name": "b", "notes": "x", "mean": (127.5, 127.5, 127.5)}).digest
    for change in ({"weights_sha256": "1" * 64}, {"channels": "bgr"}, {"mean": [0.0] * 3}):
        assert one.digest != Origin.of("templates", CARD | change).digest
    unpublished = [Origin.of("x", CARD | {"weights_sha256": "", "name": name}).digest for name in "ab"]
    assert unpublished[0] != unpublished[1]


def test_another_recognizer_is_refused_by_name_unless_forced(caplog: pytest.LogCaptureFixture) -> None:
    one = Origin.of("sae: outputs/x", CARD)
    other = Origin.of("templates: outputs/y", CARD | {"name": "b", "channels": "bgr"})
    with pytest.raises(UserError) as refusal:
        require_same_recognizer(one, one, other, force=False)
    assert str(refusal.value) == (
        f"sae: outputs/x from recognizer a ({one.digest}) and templates: outputs/y from recognizer b ({other.digest}) "
        "do not belong together; use templates and an SAE of one recognizer, or give force=true to continue anyway."
    )
    require_same_recognizer(one, other, force=True)
    assert "continuing, because force=true" in caplog.text
    require_same_recognizer(one, Origin.of("templates: z", {}), force=False)
    assert "templates: z: the recognizer behind it is not recorded" in caplog.text
