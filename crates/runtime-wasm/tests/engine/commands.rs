//! Guests that run and end.

use std::time::Duration;

use coracle_runtime::{ExitReason, Mount};

use crate::support::{Pod, engine, import, stop};

fn wat(name: &str, text: &str) -> String {
    import(name, &wat::parse_str(text).unwrap())
}

#[tokio::test]
async fn a_core_module_prints_and_exits_with_its_code() {
    let image = wat(
        "core",
        r#"(module
            (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
            (memory (export "memory") 1)
            (data (i32.const 8) "\10\00\00\00\06\00\00\00hello\n")
            (func (export "_start")
                (drop (call $write (i32.const 1) (i32.const 8) (i32.const 1) (i32.const 0)))
                (call $exit (i32.const 3))))"#,
    );
    let ended = Pod::new().await.run(&Pod::new().await.spec(&image, &[])).await;
    assert_eq!((ended.code, ended.reason), (3, ExitReason::Error));
    assert_eq!(ended.lines, ["hello"]);
}

#[tokio::test]
async fn a_core_module_sees_its_environment() {
    let image = wat(
        "core-env",
        r#"(module
            (import "wasi_snapshot_preview1" "environ_sizes_get" (func $sizes (param i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
            (memory (export "memory") 1)
            (func (export "_start")
                (drop (call $sizes (i32.const 0) (i32.const 4)))
                (call $exit (i32.load (i32.const 0)))))"#,
    );
    let pod = Pod::new().await;
    assert_eq!(pod.run(&pod.spec(&image, &[])).await.code, 0);
    let mut spec = pod.spec(&image, &[]);
    spec.env = [("A", "1"), ("B", "2"), ("A", "3")].map(|(k, v)| (k.into(), v.into())).to_vec();
    assert_eq!(pod.run(&spec).await.code, 2);
}

#[tokio::test]
async fn a_trap_is_told_with_the_names_of_functions() {
    let ended = Pod::new().await.probe(&["print", "before", "trap"]).await;
    assert_eq!((ended.code, ended.reason), (134, ExitReason::Error));
    assert!(
        ended.message.starts_with("wasm trap: wasm `unreachable` instruction executed"),
        "{}",
        ended.message
    );
    assert!(ended.message.contains("probe::deeper"), "{}", ended.message);
    assert_eq!(ended.lines, ["before"]);
}

#[tokio::test]
async fn a_guest_that_was_granted_nothing_sees_nothing() {
    let ended = Pod::new()
        .await
        .probe(&["env", "args", "stdin", "ls", "/", "ls", ".", "read", "/etc/passwd"])
        .await;
    let failed = ended.lines.iter().filter(|line| line.contains(" failed: ")).count();
    assert_eq!(ended.lines[0], "env ");
    assert!(ended.lines[1].starts_with(r#"["main", "env""#), "{}", ended.lines[1]);
    assert_eq!(ended.lines[2], "stdin Ok(0)");
    assert_eq!((ended.code, failed), (0, 3), "{:?}", ended.lines);
}

#[tokio::test]
async fn a_guest_does_not_leave_its_directory() {
    let host = engine().directory.path().join("escape");
    std::fs::create_dir_all(host.join("inside")).unwrap();
    std::fs::write(host.join("secret"), "secret").unwrap();
    std::os::unix::fs::symlink("../secret", host.join("inside/link")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", host.join("inside/passwd")).unwrap();
    let pod = Pod::new().await;
    let paths = ["/data/../secret", "/data/link", "/data/passwd", "/secret", "../secret"];
    let args: Vec<&str> = paths.iter().flat_map(|path| ["read", *path]).collect();
    let mut spec = pod.spec("probe", &args);
    spec.working_dir = Some("/data".to_owned());
    spec.mounts = vec![Mount {
        host_path: host.join("inside"),
        container_path: "/data".to_owned(),
        read_only: false,
    }];
    let ended = pod.run(&spec).await;
    assert_eq!(ended.lines.len(), paths.len());
    assert!(ended.lines.iter().all(|line| line.starts_with("read failed: ")), "{:?}", ended.lines);
}

#[tokio::test]
async fn volumes_change_under_a_running_guest_and_relative_paths_work() {
    let host = engine().directory.path().join("config");
    std::fs::create_dir_all(host.join("..v1")).unwrap();
    std::fs::write(host.join("..v1/key"), "one").unwrap();
    std::os::unix::fs::symlink("..v1", host.join("..data")).unwrap();
    std::os::unix::fs::symlink("..data/key", host.join("key")).unwrap();
    let file = engine().directory.path().join("single-file");
    std::fs::write(&file, "before").unwrap();
    let pod = Pod::new().await;
    let script = [
        "read",
        "key",
        "read",
        "/config/key",
        "read",
        "/etc/app/file",
        "write",
        "/etc/app/file",
        "after",
    ];
    let mut spec = pod.spec("probe", &script);
    spec.working_dir = Some("/config".to_owned());
    let mount = |host_path, container_path: &str, read_only| Mount {
        host_path,
        container_path: container_path.to_owned(),
        read_only,
    };
    spec.mounts = vec![mount(host, "/config", true), mount(file.clone(), "/etc/app/file", false)];
    let ended = pod.run(&spec).await;
    assert_eq!(ended.lines, ["read one", "read one", "read before", "write done"]);
    assert_eq!(std::fs::read_to_string(file).unwrap(), "after");
}

#[tokio::test]
async fn a_guest_that_spins_is_stopped_at_once() {
    let pod = Pod::new().await;
    let spec = pod.spec("probe", &["print", "begun", "spin", "0"]);
    pod.start(&spec).await.unwrap();
    let began = std::time::Instant::now();
    let ended = stop(&spec, Duration::from_secs(30)).await;
    assert_eq!((ended.code, ended.reason), (143, ExitReason::Error));
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}
