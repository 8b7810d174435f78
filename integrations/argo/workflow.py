"""Argo Workflows, written with hera: find wrong captions, tried again when the pod dies; then judge them."""

import sys

from hera.workflows import DAG, Container, Env, Parameter, RetryStrategy, SecretEnv, Workflow

# An image with ecif-client, in which the files are, or a folder that is mounted.
IMAGE = "registry.example/ecif-client"
SERVICE = [
    Env(name="ECIF_URL", value="{{workflow.parameters.url}}"),
    SecretEnv(name="ECIF_API_KEY", secret_name="ecif", secret_key="key", optional=True),
]
FIND = """
ecif submit "$TRAIN" --validation "$CLEAN" --idempotency-key "$RUN/find" --json > /tmp/job.json
python3 -c 'import json; print(json.load(open("/tmp/job.json"))["id"], end="")' > /tmp/job
ecif watch "$(cat /tmp/job)"
"""

with Workflow(
    generate_name="captions-",
    entrypoint="captions",
    arguments=[Parameter(name=name) for name in ("url", "train", "clean")]
    + [Parameter(name="max-flagged", value="15%")],
) as workflow:
    find = Container(
        name="find",
        image=IMAGE,
        command=["bash", "-euc", FIND],
        env=[
            *SERVICE,
            # All tries of a pod, and those of `argo retry`, share the workflow's uid: they make one job.
            Env(name="RUN", value="{{workflow.uid}}"),
            Env(name="TRAIN", value="{{workflow.parameters.train}}"),
            Env(name="CLEAN", value="{{workflow.parameters.clean}}"),
        ],
        outputs=[Parameter(name="job", value_from={"path": "/tmp/job"})],
        retry_strategy=RetryStrategy(limit=3, retry_policy="Always"),
    )
    judge = Container(
        name="judge",
        image=IMAGE,
        command=["ecif", "gate", "{{inputs.parameters.job}}", "--max-flagged", "{{workflow.parameters.max-flagged}}"],
        env=SERVICE,
        inputs=[Parameter(name="job")],
    )
    with DAG(name="captions"):
        found = find(name="find")
        found >> judge(name="judge", arguments={"job": found.get_parameter("job")})

if __name__ == "__main__":
    sys.stdout.write(workflow.to_yaml())
