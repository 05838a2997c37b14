'''Where pictures come from: one file for each kind of source, and one line in the table of `registry.py`.

A source is a class that is made from the text that the user gives as `faces` and that has (see `Source` in
`faces/pictures.py`)

    name          this text; it is written into the template set
    attributes    its extra columns: name → "int", "float", "bool" or "string"; {} if there are none
    __iter__      gives one `Picture` for each encoded picture

To add one, for example text files with the path of one picture per line, write `faces/sources/paths.py`:

    from collections.abc import Iterator, Mapping

    from fsae_mlflow.errors import UserError
    from fsae_mlflow.faces.pictures import Picture, identity_of
    from fsae_mlflow.faces.storage import Location


    class PathList:
        """A .txt file with one path per line; relative paths start at its folder.

        Raises: UserError if the file does not exist.
        """

        attributes: Mapping[str, str] = {}

        def __init__(self, faces: str) -> None:
            self.name, self.location = faces, Location.of(faces)
            if self.location.kind != "file":
                raise UserError(f"faces: there is no file {faces}; give a text file with one path per line.")

        def __iter__(self) -> Iterator[Picture]:
            with self.location.open() as lines:
                for line in lines:
                    path = line.decode().strip()
                    yield Picture(path, identity_of(path), self.location.beside(path))

and add the line `"*.txt": PathList,` to `SOURCES` in `registry.py`. Rules:

- `__iter__` is called several times: it gives the same pictures in the same order each time, and does not hold all of
  them in memory. Each `Picture` should have another `image_id`: pairs are found by it.
- `__iter__` lists pictures and does not read them: worker processes do, later. So a `Picture` says where its bytes are
  by `location` (and `offset` and `length`, as in `tars.py`). Only small sources give the bytes as `content`.
- `Location` (`faces/storage.py`) opens local paths and URIs (s3://…) alike.
- A picture that the source knows to be unreadable is given with `fault`, the reason; it becomes a failure. Files that
  are no pictures may be counted by suffix in `self.passed_over` (a Counter that each pass begins anew).
- A mistake of the user is a UserError (`fsae_mlflow/errors.py`), which begins with "faces:" and says what to do.

Test it in `tests/faces/sources/`, and add a row to the table of sources in `docs/extraction.md`.
'''
