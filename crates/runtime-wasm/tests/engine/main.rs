//! The Wasm engine with real guests. One process and one engine for all: a node has no more.

#![expect(clippy::unwrap_used, reason = "in tests a panic is the message")]

mod commands;
mod http;
mod images;
mod limits;
mod network;
mod registry;
mod support;

use std::path::PathBuf;
use std::sync::Arc;

use coracle_runtime::Runtime;
use coracle_runtime::suite::{self, Call, Program, Subject};

struct Wasm;

impl Subject for Wasm {
    fn runtime(&self) -> Arc<dyn Runtime> {
        support::engine().runtime.clone()
    }

    fn call(&self, program: Program, arguments: &[&str]) -> Call {
        let mut args: Vec<String> = Vec::new();
        match program {
            Program::Print => {
                args.extend(
                    arguments.iter().flat_map(|text| ["print".to_owned(), (*text).to_owned()]),
                );
            }
            Program::Environment => args.push("env".to_owned()),
            Program::Exit => args.extend(["exit".to_owned(), arguments[0].to_owned()]),
            Program::Sleep => args.extend(["sleep".to_owned(), "1000000".to_owned()]),
            Program::Read => args.extend(["read".to_owned(), arguments[0].to_owned()]),
            Program::Write => {
                args.push("write".to_owned());
                args.extend(arguments.iter().map(|text| (*text).to_owned()));
            }
        }
        Call { image: "probe".to_owned(), command: vec!["probe".to_owned()], args }
    }

    fn directory(&self) -> PathBuf {
        support::engine().directory.path().to_owned()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_suite_passes() {
    suite::run(&Wasm).await;
}
