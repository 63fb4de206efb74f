//! Guests that run and end: core modules with `_start`, and components of the world `wasi:cli/command`.

use std::sync::Arc;

use wasmtime::InstancePre;
use wasmtime_wasi::p2::bindings::CommandPre;

use crate::ending::Ending;
use crate::guest::{Grants, Guest, Instance, ModuleGuest, new_store};
use crate::memory::Denied;

/// Runs a core module to its end.
pub(crate) async fn run_module(pre: InstancePre<ModuleGuest>, grants: Arc<Grants>) -> Ending {
    let mut store = match new_store::<ModuleGuest>(pre.module().engine(), &grants) {
        Ok(store) => store,
        Err(error) => return Ending::failed(error.to_string()),
    };
    let result = async {
        let instance = pre.instantiate_async(&mut store).await?;
        let start = instance.get_typed_func::<(), ()>(&mut store, "_start")?;
        start.call_async(&mut store, ()).await
    };
    let result = result.await.map(|()| Ok(()));
    ending(result, store.data_mut().memory().denied())
}

/// Runs a component to its end.
pub(crate) async fn run_command(pre: CommandPre<Guest>, grants: Arc<Grants>) -> Ending {
    let mut store = match new_store::<Guest>(pre.engine(), &grants) {
        Ok(store) => store,
        Err(error) => return Ending::failed(error.to_string()),
    };
    let result = async {
        let command = pre.instantiate_async(&mut store).await?;
        command.wasi_cli_run().call_run(&mut store).await
    };
    let result = result.await;
    ending(result, store.data_mut().memory().denied())
}

fn ending(result: wasmtime::Result<Result<(), ()>>, denied: Option<Denied>) -> Ending {
    match result {
        Ok(Ok(())) => Ending::exited(0),
        Ok(Err(())) => Ending::exited(1),
        Err(error) => Ending::of_error(&error, denied),
    }
}
