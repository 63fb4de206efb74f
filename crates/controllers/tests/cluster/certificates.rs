//! Requests for certificates: a kubelet's way to its own, and a person's.

use coracle_apiserver::identity::User;
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{
    CertificateSigningRequest, CertificateSigningRequestCondition, CertificateSigningRequestSpec,
};
use kube::api::PostParams;
use kube::{Api, Client};

use crate::harness::{Cluster, until};

fn asked(client: &Client) -> Api<CertificateSigningRequest> {
    Api::all(client.clone())
}

fn request(name: &str, signer: &str, user: &str, group: &str) -> CertificateSigningRequest {
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::OrganizationName, group);
    params.distinguished_name.push(rcgen::DnType::CommonName, user);
    let key = rcgen::KeyPair::generate().unwrap();
    let pem = params.serialize_request(&key).unwrap().pem().unwrap();
    let mut request = CertificateSigningRequest {
        spec: CertificateSigningRequestSpec {
            request: ByteString(pem.into_bytes()),
            signer_name: signer.to_owned(),
            usages: Some(vec!["client auth".to_owned(), "digital signature".to_owned()]),
            ..CertificateSigningRequestSpec::default()
        },
        ..CertificateSigningRequest::default()
    };
    request.metadata.name = Some(name.to_owned());
    request
}

async fn issued(cluster: &Cluster, name: &str) -> CertificateSigningRequest {
    let api = asked(&cluster.client);
    until(async || {
        let request = api.get(name).await.unwrap();
        request.status.as_ref().and_then(|status| status.certificate.as_ref())?;
        Some(request)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_machine_becomes_a_node_and_a_person_waits_for_approval() {
    let cluster = Cluster::start().await;
    let kubelet_signer = "kubernetes.io/kube-apiserver-client-kubelet";
    let groups = ["system:bootstrappers", "system:bootstrappers:kubeadm:default-node-token"];
    let machine = cluster.server.client(User::new("system:bootstrap:abcdef", &groups));
    let new = request("new", kubelet_signer, "system:node:n1", "system:nodes");
    asked(&machine).create(&PostParams::default(), &new).await.unwrap();
    let new = issued(&cluster, "new").await;
    let conditions = new.status.unwrap().conditions.unwrap();
    assert_eq!(conditions[0].reason.as_deref(), Some("AutoApproved"));
    assert_eq!(
        conditions[0].message.as_deref(),
        Some("Auto approving kubelet client certificate after SubjectAccessReview.")
    );
    // A node renews its own, and gets nobody else's.
    let node = cluster.server.client(User::node("n1"));
    let stolen = request("stolen", kubelet_signer, "system:node:n2", "system:nodes");
    asked(&node).create(&PostParams::default(), &stolen).await.unwrap();
    let renewed = request("renewed", kubelet_signer, "system:node:n1", "system:nodes");
    asked(&node).create(&PostParams::default(), &renewed).await.unwrap();
    let renewed = issued(&cluster, "renewed").await;
    let message = renewed.status.unwrap().conditions.unwrap().remove(0).message.unwrap();
    assert!(message.contains("self kubelet client"), "{message}");
    // A person's waits until somebody approves it; one that breaks the signer's rules fails then.
    let client = "kubernetes.io/kube-apiserver-client";
    let mut wrong = request("wrong", client, "alice", "dev");
    wrong.spec.usages.as_mut().unwrap().push("server auth".to_owned());
    for one in [request("alice", client, "alice", "dev"), wrong] {
        let mut made = asked(&cluster.client).create(&PostParams::default(), &one).await.unwrap();
        made.status.get_or_insert_default().conditions =
            Some(vec![CertificateSigningRequestCondition {
                type_: "Approved".to_owned(),
                status: "True".to_owned(),
                ..CertificateSigningRequestCondition::default()
            }]);
        let name = made.metadata.name.clone().unwrap();
        asked(&cluster.client)
            .replace_subresource("approval", &name, &PostParams::default(), &made)
            .await
            .unwrap();
    }
    issued(&cluster, "alice").await;
    let failed = until(async || {
        let request = asked(&cluster.client).get("wrong").await.unwrap();
        let conditions = request.status.and_then(|status| status.conditions)?;
        conditions.into_iter().find(|condition| condition.type_ == "Failed")
    })
    .await;
    assert_eq!(
        failed.message.as_deref(),
        Some("invalid usage for client certificate: server auth")
    );
    let stolen = asked(&cluster.client).get("stolen").await.unwrap();
    assert!(stolen.status.unwrap_or_default().conditions.is_none());
    cluster.stop().await;
}
