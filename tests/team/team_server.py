"""A team's tracking server: MLflow on PostgreSQL, artifacts in a bucket behind it, and a password for each user."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import boto3
import requests
from moto.server import ThreadedMotoServer

from tests.servers import MlflowServer
from tests.team.postgresql import Postgresql

KEYS = {"AWS_ACCESS_KEY_ID": "team-key", "AWS_SECRET_ACCESS_KEY": "team-secret", "AWS_DEFAULT_REGION": "us-east-1"}
BUCKET = "artifacts"


class TeamServer(MlflowServer):
    """That server, with an administrator and one user, ann, who may log to every experiment as all of a team may."""

    def __init__(self, folder: Path, postgresql: Postgresql, bucket_address: str) -> None:
        self.admin_password, self.password = secrets.token_hex(16), secrets.token_hex(16)
        settings = folder / "basic_auth.ini"
        settings.write_text(
            f"[mlflow]\ndefault_permission = EDIT\ndatabase_uri = {postgresql.new_database()}\n"
            f"admin_username = admin\nadmin_password = {self.admin_password}\n"
            "auth_cache_ttl_seconds = 60\n"  # else each request hashes the password, which takes most of its time
        )
        # The clients have no key of the bucket, only the server has.
        more = KEYS | {
            "MLFLOW_S3_ENDPOINT_URL": bucket_address,
            "MLFLOW_AUTH_CONFIG_PATH": str(settings),
            "MLFLOW_FLASK_SERVER_SECRET_KEY": secrets.token_hex(8),
        }
        self.postgresql = postgresql
        key, secret, region = KEYS.values()
        self.storage = boto3.client(
            "s3",
            endpoint_url=bucket_address,
            aws_access_key_id=key,
            aws_secret_access_key=secret,
            region_name=region,
        )
        database = postgresql.new_database()
        basic_auth = "--factory mlflow.server.auth:create_app"
        super().__init__(database, f"s3://{BUCKET}/team", folder / "server.log", application=basic_auth, **more)

    def add_user(self) -> None:
        user = {"username": "ann", "password": self.password}
        address = f"{self.address}/api/2.0/mlflow/users/create"
        requests.post(address, json=user, auth=("admin", self.admin_password), timeout=60).raise_for_status()

    def objects(self) -> Iterator[bytes]:
        """The content of every object in the bucket: the artifacts of all runs."""
        for page in self.storage.get_paginator("list_objects_v2").paginate(Bucket=BUCKET):
            for one in page["Contents"]:
                yield self.storage.get_object(Bucket=BUCKET, Key=one["Key"])["Body"].read()

    @property
    def secrets(self) -> list[str]:
        """What must not be read in any log, tag or file of a client."""
        return [self.password, self.admin_password, self.postgresql.password, KEYS["AWS_SECRET_ACCESS_KEY"]]


@contextmanager
def running_team_server(folder: Path, postgresql: Postgresql) -> Iterator[TeamServer]:
    """A team's server, started, with an empty store and an empty bucket."""
    storage = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    storage.start()
    host, port = storage.get_host_and_port()
    server = TeamServer(folder, postgresql, f"http://{host}:{port}")
    try:
        server.storage.create_bucket(Bucket=BUCKET)
        server.start()
        server.add_user()
        yield server
    finally:
        server.kill()
        storage.stop()
