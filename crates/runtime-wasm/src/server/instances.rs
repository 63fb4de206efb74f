//! The guest instances behind a server: fresh ones, and warm ones that wait for their next request.

use std::sync::Arc;

use http::{Request, StatusCode};
use hyper::body::Incoming;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use wasmtime::{PoolConcurrencyLimitError, Store};
use wasmtime_wasi_http::WasiHttpView;
use wasmtime_wasi_http::p2::bindings::Proxy;
use wasmtime_wasi_http::p2::bindings::http::types::Scheme;

use super::{HttpServer, Outcome};
use crate::ending::trap_message;
use crate::guest::{Guest, Instance as _, new_store};
use crate::memory::{Denied, Reservation};

/// Warm instances kept when there is nothing to do; a burst's others are dropped.
const WARM_MAX: usize = 256;

/// An instance between two requests.
pub(super) struct Warm {
    store: Store<Guest>,
    proxy: Proxy,
    requests: u32,
    /// Held as long as the instance is.
    _room: Reservation,
}

/// What a request was given: an instance, or room for one.
pub(super) struct Place {
    instance: Instance,
    _permit: OwnedSemaphorePermit,
}

enum Instance {
    Warm(Box<Warm>),
    Fresh(Reservation),
}

/// Tells those who wait for memory, when a request has given its place back.
struct Freed<'a>(&'a HttpServer);

impl Drop for Freed<'_> {
    fn drop(&mut self) {
        if self.0.parts.grants.memory.limit().is_some() {
            self.0.memory_freed.notify_one();
        }
    }
}

impl HttpServer {
    /// A warm instance, or room for a fresh one; else the permit back.
    pub(super) fn place(
        &self,
        permit: OwnedSemaphorePermit,
    ) -> Result<Place, OwnedSemaphorePermit> {
        let warm = if self.parts.reuse > 1 { self.warm.lock().pop() } else { None };
        let instance = match warm {
            Some(warm) => Instance::Warm(warm),
            None => match self.parts.grants.memory.reserve(self.parts.minimum_memory) {
                Some(room) => Instance::Fresh(room),
                None => return Err(permit),
            },
        };
        Ok(Place { instance, _permit: permit })
    }

    /// One request from its instance's begin to the guest's return. An error is what the client is told when the guest
    /// gave no answer.
    pub(super) async fn run(
        self: Arc<Self>,
        request: Request<Incoming>,
        answer: oneshot::Sender<Outcome>,
        place: Place,
    ) -> Result<(), StatusCode> {
        let _freed = Freed(&self);
        let Place { instance, _permit } = place;
        let mut instance = match instance {
            Instance::Warm(mut warm) => {
                warm.store.set_epoch_deadline(1);
                warm
            }
            Instance::Fresh(room) => self.instantiate(room).await?,
        };
        match call(&mut instance, request, answer).await {
            Ok(()) => {
                self.keep(instance);
                Ok(())
            }
            Err(error) => Err(self.trapped(&error, instance.store.data_mut().memory().denied())),
        }
    }

    async fn instantiate(&self, room: Reservation) -> Result<Box<Warm>, StatusCode> {
        let parts = &self.parts;
        let mut store = match new_store::<Guest>(parts.pre.engine(), &parts.grants) {
            Ok(store) => store,
            Err(error) => {
                parts.grants.log.note(&format!("coracle: request not served: {error}"));
                return Err(StatusCode::INTERNAL_SERVER_ERROR);
            }
        };
        match parts.pre.instantiate_async(&mut store).await {
            Ok(proxy) => Ok(Box::new(Warm { store, proxy, requests: 0, _room: room })),
            Err(error) if error.is::<PoolConcurrencyLimitError>() => {
                Err(StatusCode::SERVICE_UNAVAILABLE)
            }
            Err(error) => Err(self.trapped(&error, store.data_mut().memory().denied())),
        }
    }

    fn keep(&self, mut instance: Box<Warm>) {
        instance.requests += 1;
        if instance.requests < self.parts.reuse && !self.killed.is_cancelled() {
            let mut warm = self.warm.lock();
            if warm.len() < WARM_MAX {
                warm.push(instance);
            }
        }
    }

    /// Writes a trap to the container's log. Only a guest that alone needs more than the limit ends its container.
    fn trapped(&self, error: &wasmtime::Error, denied: Option<Denied>) -> StatusCode {
        let message = trap_message(error);
        self.parts.grants.log.note(&format!("coracle: request failed: {message}"));
        match denied {
            None => StatusCode::INTERNAL_SERVER_ERROR,
            Some(Denied::Pressure) => StatusCode::SERVICE_UNAVAILABLE,
            Some(Denied::OverLimit) => {
                if let Some(sender) = self.out_of_memory.lock().take() {
                    // Nobody listens any more when the container is being stopped.
                    let _ = sender.send(format!("memory limit reached: {message}"));
                }
                StatusCode::INTERNAL_SERVER_ERROR
            }
        }
    }
}

async fn call(
    instance: &mut Warm,
    request: Request<Incoming>,
    answer: oneshot::Sender<Outcome>,
) -> wasmtime::Result<()> {
    let mut http = instance.store.data_mut().http();
    let request = http.new_incoming_request(Scheme::Http, request)?;
    let answer = http.new_response_outparam(answer)?;
    let handler = instance.proxy.wasi_http_incoming_handler();
    handler.call_handle(&mut instance.store, request, answer).await
}
