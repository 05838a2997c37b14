# The project and the server of a team, in the versions of constraints.txt:  docker build -t fsae_mlflow .
FROM python:3.11-slim

WORKDIR /fsae_mlflow
COPY pyproject.toml constraints.txt README.md LICENSE NOTICE MLproject conda.yaml ./
COPY fsae_mlflow fsae_mlflow
COPY entrypoints entrypoints
RUN pip install --no-cache-dir --editable ".[team]" --constraint constraints.txt \
    && useradd --create-home --uid 1000 fsae \
    && mkdir outputs \
    && chown fsae:fsae . outputs

# The image has no git; MLflow would say so at each start.
ENV GIT_PYTHON_REFRESH=quiet
USER fsae
