"""Object storage, tried against a local S3 server."""

from collections.abc import Iterator

import pyarrow.fs
import pytest
from moto.server import ThreadedMotoServer
from PIL import Image

from fsae_mlflow.faces.decoding import decoded
from fsae_mlflow.faces.pictures import take_inventory
from fsae_mlflow.faces.sources.registry import open_source
from tests.pictures import encoded


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """The query that leads an s3:// URI to the local server, whose bucket `faces` holds a folder and a list."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    port = server.get_host_and_port()[1]
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("AWS_ACCESS_KEY_ID", "key")
        environment.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        query = f"?scheme=http&endpoint_override=127.0.0.1:{port}&region=us-east-1&allow_bucket_creation=true"
        storage, path = pyarrow.fs.FileSystem.from_uri(f"s3://faces{query}")
        storage.create_dir(path)
        for value, name in enumerate(["ann/1 of 2.png", "ann/2.png", "bob/1.png"]):
            with storage.open_output_stream(f"{path}/set/{name}") as file:
                file.write(encoded(Image.new("RGB", (8, 8), (value, 0, 0))))
        with storage.open_output_stream(f"{path}/set/list.csv") as file:
            file.write(b"path,age\nbob/1.png,30\nann/2.png,20\nann/lost.png,1\n")
        yield query
    server.stop()


def test_a_folder_in_a_bucket(bucket: str) -> None:
    source = open_source(f"s3://faces/set{bucket}")
    assert take_inventory(source).n_pictures == 3
    items = list(decoded(source, workers=1))
    assert [item.picture.image_id for item in items] == ["ann/1 of 2.png", "ann/2.png", "bob/1.png"]
    assert [int(item.pixels[0, 0, 0]) for item in items if item.pixels is not None] == [0, 1, 2]


def test_a_list_in_a_bucket_with_paths_beside_it(bucket: str) -> None:
    items = list(decoded(open_source(f"s3://faces/set/list.csv{bucket}"), workers=0))
    assert [item.picture.attributes for item in items] == [(30,), (20,), (1,)]
    assert [item.reason for item in items] == ["", "", "The file does not exist."]


def test_a_missing_bucket_is_one_sentence(bucket: str) -> None:
    with pytest.raises(ValueError, match="there is no folder s3://elsewhere/set"):
        open_source(f"s3://elsewhere/set{bucket}")
