"""A program in the cluster: a ServiceAccount's token, what it may do, and who says so."""

import pathlib
import tempfile

from kubernetes import client
from kubernetes.config.incluster_config import InClusterConfigLoader

from story import connect, refused

NAMESPACE = "shop"


def account(api):
    """An account that may read ConfigMaps of its namespace, and its token."""
    core, rbac = client.CoreV1Api(api), client.RbacAuthorizationV1Api(api)
    core.create_namespace({"metadata": {"name": NAMESPACE}})
    core.create_namespaced_service_account(NAMESPACE, {"metadata": {"name": "reader"}})
    rules = [client.V1PolicyRule(api_groups=[""], resources=["configmaps"], verbs=["get", "list"])]
    rbac.create_namespaced_role(
        NAMESPACE, client.V1Role(metadata=client.V1ObjectMeta(name="reader"), rules=rules)
    )
    rbac.create_namespaced_role_binding(
        NAMESPACE,
        client.V1RoleBinding(
            metadata=client.V1ObjectMeta(name="reader"),
            role_ref=client.V1RoleRef(
                api_group="rbac.authorization.k8s.io", kind="Role", name="reader"
            ),
            subjects=[
                client.RbacV1Subject(kind="ServiceAccount", name="reader", namespace=NAMESPACE)
            ],
        ),
    )
    request = client.AuthenticationV1TokenRequest(
        spec=client.V1TokenRequestSpec(audiences=[], expiration_seconds=3600)
    )
    issued = core.create_namespaced_service_account_token("reader", NAMESPACE, request)
    assert issued.status.expiration_timestamp
    return issued.status.token


def in_cluster(api, token):
    """The configuration that a program finds in its pod."""
    server = api.configuration.host.removeprefix("https://")
    host, port = server.rsplit(":", 1)
    with tempfile.TemporaryDirectory() as folder:
        files = pathlib.Path(folder)
        (files / "token").write_text(token)
        ca = pathlib.Path(api.configuration.ssl_ca_cert).read_text()
        (files / "ca.crt").write_text(ca)
        environment = {"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": port}
        configuration = client.Configuration()
        InClusterConfigLoader(
            token_filename=str(files / "token"),
            cert_filename=str(files / "ca.crt"),
            environ=environment,
        ).load_and_set(configuration)
        own = client.ApiClient(configuration)
        core = client.CoreV1Api(own)
        names = [item.metadata.name for item in core.list_namespaced_config_map(NAMESPACE).items]
        assert "kube-root-ca.crt" in names, names
        with refused(403, "Forbidden", "system:serviceaccount:shop:reader", "cannot list resource"):
            core.list_namespaced_secret(NAMESPACE)
        with refused(403):
            core.list_config_map_for_all_namespaces()

        who = client.AuthenticationV1Api(own).create_self_subject_review({}).status.user_info
        assert who.username == "system:serviceaccount:shop:reader", who
        assert "system:serviceaccounts:shop" in who.groups, who
        reviews = client.AuthorizationV1Api(own)
        for verb, allowed in [("list", True), ("delete", False)]:
            review = client.V1SelfSubjectAccessReview(
                spec=client.V1SelfSubjectAccessReviewSpec(
                    resource_attributes=client.V1ResourceAttributes(
                        namespace=NAMESPACE, verb=verb, resource="configmaps"
                    )
                )
            )
            status = reviews.create_self_subject_access_review(review).status
            assert status.allowed is allowed, (verb, status)
        rules = reviews.create_self_subject_rules_review(
            client.V1SelfSubjectRulesReview(
                spec=client.V1SelfSubjectRulesReviewSpec(namespace=NAMESPACE)
            )
        ).status
        assert not rules.incomplete
        assert any("configmaps" in (rule.resources or []) for rule in rules.resource_rules), rules


def reviewed(api, token):
    reviews = client.AuthorizationV1Api(api)
    spec = {
        "user": "system:serviceaccount:shop:reader",
        "groups": ["system:serviceaccounts"],
        "resourceAttributes": {"namespace": NAMESPACE, "verb": "get", "resource": "configmaps"},
    }
    status = reviews.create_subject_access_review({"spec": spec}).status
    assert status.allowed and "reader" in status.reason, status
    local = reviews.create_namespaced_local_subject_access_review(NAMESPACE, {"spec": spec})
    assert local.status.allowed
    review = client.AuthenticationV1Api(api).create_token_review({"spec": {"token": token}}).status
    assert review.authenticated and review.user.username == spec["user"], review
    review = client.AuthenticationV1Api(api).create_token_review({"spec": {"token": "no"}}).status
    assert not review.authenticated and review.error, review


def strangers(api):
    for headers, code in [({}, 403), ({"authorization": "Bearer nonsense"}, 401)]:
        configuration = client.Configuration()
        configuration.host = api.configuration.host
        configuration.ssl_ca_cert = api.configuration.ssl_ca_cert
        stranger = client.ApiClient(configuration)
        for name, value in headers.items():
            stranger.set_default_header(name, value)
        with refused(code):
            client.CoreV1Api(stranger).list_namespace()


def acting_as_another(api):
    """Impersonation, which scripts use to test rights."""
    other = client.ApiClient(api.configuration)
    other.set_default_header("Impersonate-User", "jane")
    other.set_default_header("Impersonate-Group", "sailors")
    who = client.AuthenticationV1Api(other).create_self_subject_review({}).status.user_info
    assert who.username == "jane" and "sailors" in who.groups, who
    with refused(403, 'User \\"jane\\" cannot list resource'):
        client.CoreV1Api(other).list_namespace()


def main():
    connect()
    api = client.ApiClient()
    token = account(api)
    in_cluster(api, token)
    reviewed(api, token)
    strangers(api)
    acting_as_another(api)


main()
