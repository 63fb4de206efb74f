//! `APIService`: which group-versions there are, and who serves them.

mod harness;

use harness::Harness;

#[tokio::test]
async fn what_we_serve_ourselves_is_registered_and_available() {
    let server = Harness::start().await;
    let list = server.get("/apis/apiregistration.k8s.io/v1/apiservices").await.expect(200);
    let names = harness::names(&list);
    assert!(
        names.contains(&"v1.".to_owned()) && names.contains(&"v1.apps".to_owned()),
        "{names:?}"
    );
    for service in list["items"].as_array().unwrap() {
        let condition = &service["status"]["conditions"][0];
        assert_eq!(
            (&condition["type"], &condition["status"], &condition["reason"]),
            (&"Available".into(), &"True".into(), &"Local".into()),
            "{service}"
        );
    }
}
