"""FaceNet from a checkpoint, without its download."""

from pathlib import Path

import pytest
import torch
from facenet_pytorch import InceptionResnetV1

from fsae_mlflow.recognizers import facenet
from fsae_mlflow.recognizers.registry import load_recognizer
from tests.recognizers.networks import gradient_share


@pytest.fixture(scope="module")
def network() -> InceptionResnetV1:
    torch.manual_seed(0)
    return InceptionResnetV1(pretrained=None, classify=True, num_classes=4)


def test_templates_are_facenet_pytorch_s(network: InceptionResnetV1, tmp_path: Path) -> None:
    torch.save(network.state_dict(), tmp_path / "mine.pt")
    recognizer = load_recognizer(f"facenet:{tmp_path / 'mine.pt'}")
    faces = torch.rand(2, 3, 160, 160)
    plain = InceptionResnetV1(pretrained=None, classify=False)
    plain.load_state_dict(network.state_dict(), strict=False)
    with torch.no_grad():
        expected = plain.eval()((faces * 255 - 127.5) / 128)
    torch.testing.assert_close(recognizer(faces), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(recognizer(faces).norm(dim=1), torch.ones(2))
    assert recognizer.card.l2_normalized and recognizer.card.input_size == 160
    assert gradient_share(recognizer) > 0.9


def test_downloaded_weights_are_found_again(
    network: InceptionResnetV1, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    file, _ = facenet.PRETRAINED["vggface2"]
    (tmp_path / "checkpoints").mkdir()
    torch.save(network.state_dict(), tmp_path / "checkpoints" / file)
    card = load_recognizer("facenet").card
    assert (card.name, card.training_data) == ("facenet-vggface2", "VGGFace2")


def test_failed_download_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(*_: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("facenet_pytorch.models.inception_resnet_v1.download_url_to_file", no_network)
    with pytest.raises(ValueError, match=r"no route to host.*facenet:/path/to/it"):
        load_recognizer("facenet:casia-webface")


def test_checkpoint_of_something_else_is_refused(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(2)}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match=r"missing: conv2d_1a\.conv\.weight.*unexpected: weight"):
        load_recognizer(f"facenet:{tmp_path / 'other.pt'}")


class Harmful:
    """Pickles to a call."""

    def __reduce__(self) -> tuple:
        return print, ("harm",)


def test_checkpoint_with_code_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"a": Harmful()}, tmp_path / "bad.pt")
    with pytest.raises(ValueError, match="must hold tensors and plain values only"):
        load_recognizer(f"facenet:{tmp_path / 'bad.pt'}")
    assert "harm" not in capsys.readouterr().out
