//! Files of operators: encryption at rest, other issuers of tokens, the audit policy, kubeconfigs.

use coracle_apiserver::audit::check_policy;
use coracle_apiserver::authn::oidc::Oidc;
use coracle_apiserver::encryption::Encryption;
use kube::config::Kubeconfig;

/// What these files may be at most; nobody is protected from their own terabytes.
const LARGEST: usize = 64 << 10;

pub fn run(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if text.len() > LARGEST {
        return;
    }
    let _ = Encryption::from_yaml(text);
    let _ = Oidc::from_yaml(text);
    let _ = check_policy(text);
    let _ = Kubeconfig::from_yaml(text);
}

pub fn seeds() -> Vec<Vec<u8>> {
    super::texts(&[
        "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n- resources: [secrets, '*.apps']\n  providers:\n  - aesgcm: {keys: [{name: k, secret: AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=}]}\n  - identity: {}\n",
        "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\njwt:\n- issuer: {url: https://a.example, audiences: [b]}\n  claimMappings: {username: {expression: claims.sub}, groups: {claim: g, prefix: ''}}\n  claimValidationRules: [{expression: 'claims.exp > 0', message: m}]\n  userValidationRules: [{expression: \"!user.username.startsWith('system:')\"}]\n",
        "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\nrules:\n- level: Metadata\n  users: [a]\n  verbs: [get]\n  resources: [{group: '', resources: ['pods/*'], resourceNames: [n]}]\n- level: None\n  nonResourceURLs: ['/healthz*']\n",
        "apiVersion: v1\nkind: Config\ncurrent-context: c\nclusters: [{name: k, cluster: {server: https://h:1, certificate-authority-data: AA==}}]\ncontexts: [{name: c, context: {cluster: k, user: u}}]\nusers: [{name: u, user: {token: t}}]\n",
        "a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\nd: [*c, *c]\n? {k: v}\n: !!binary AAAA\ne: |2\n  text\nf: >-\n  folded\n",
    ])
}
