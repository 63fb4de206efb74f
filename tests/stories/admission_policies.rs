//! Admission policies as kubectl's users meet them: who is refused and why, what is warned about, what is added.

use coracle_tests::{Cluster, kubectls};

const REFUSING: &str = "\
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: few-replicas}
spec:
  paramKind: {apiVersion: v1, kind: ConfigMap}
  matchConstraints:
    resourceRules:
    - {apiGroups: [apps], apiVersions: [v1], operations: [CREATE, UPDATE], resources: [deployments]}
  variables:
  - {name: most, expression: 'int(params.data.most)'}
  validations:
  - expression: object.spec.replicas <= variables.most
    messageExpression: \"'at most ' + string(variables.most) + ' replicas'\"
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: few-replicas}
spec:
  policyName: few-replicas
  validationActions: [Deny]
  paramRef: {name: limits, namespace: default, parameterNotFoundAction: Deny}
  matchResources:
    namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: default}}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: limits}
data: {most: '2'}
";

const ADDING: &str = "\
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingAdmissionPolicy
metadata: {name: owner}
spec:
  reinvocationPolicy: Never
  matchConstraints:
    resourceRules:
    - {apiGroups: [''], apiVersions: [v1], operations: [CREATE], resources: [configmaps]}
  mutations:
  - patchType: ApplyConfiguration
    applyConfiguration:
      expression: \"Object{metadata: Object.metadata{labels: {'made-by': request.userInfo.username.replace(':', '.')}}}\"
---
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingAdmissionPolicyBinding
metadata: {name: owner}
spec: {policyName: owner}
";

const CONFUSED: &str = "\
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: confused}
spec:
  matchConstraints:
    resourceRules:
    - {apiGroups: [apps], apiVersions: [v1], operations: [CREATE], resources: [deployments]}
  validations:
  - expression: object.spec.replicas > '1'
";

#[test]
fn policies_refuse_and_add() {
    for kubectl in kubectls() {
        let cluster = Cluster::start().with_kubectl(&kubectl);
        cluster.apply(REFUSING);
        let deploy = |replicas: &'static str| {
            ["create", "deployment", "web", "--image=web.wasm", "--dry-run=server", replicas]
        };
        let refused = cluster.kubectl_refused(&deploy("--replicas=3"));
        assert!(
            refused.contains("ValidatingAdmissionPolicy 'few-replicas' with binding 'few-replicas' denied request: at most 2 replicas"),
            "{refused}"
        );
        cluster.kubectl(&deploy("--replicas=2"));

        cluster.apply(ADDING);
        cluster.kubectl(&["create", "configmap", "stamped"]);
        let labels =
            cluster.kubectl(&["get", "configmap", "stamped", "-o", "jsonpath={.metadata.labels}"]);
        assert!(labels.contains("\"made-by\":\"system.admin\""), "{labels}");

        cluster.apply(CONFUSED);
        let path = "--for=jsonpath={.status.typeChecking.expressionWarnings[0].fieldRef}=spec.validations[0].expression";
        cluster.kubectl(&["wait", "validatingadmissionpolicy/confused", path, "--timeout=10s"]);

        let broken = CONFUSED.replace("object.spec.replicas > '1'", "object.spec.replicas >");
        let refused = cluster.try_kubectl_with(&["apply", "-f", "-"], &broken).stderr;
        assert!(
            refused.contains("compilation failed: ERROR: <input>:1:23: Syntax error"),
            "{refused}"
        );
    }
}
