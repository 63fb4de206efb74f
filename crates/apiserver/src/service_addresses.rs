//! Cluster addresses and node ports of Services: each belongs to one Service at a time.
//!
//! The Services in the store say which are taken; this is the same knowledge in a form that can be asked quickly. It is read once at
//! start, and kept because every write passes here: an address is reserved before its Service is written, and given back if it is not.
//!
//! Addresses come out of the range of the server's own option and of the `ServiceCIDR`s that people add (`ranges.rs`). Whose they are
//! is told by `IPAddress` objects (`objects.rs`), which follow the Services' writes.

mod cidr;
mod objects;
mod ranges;

use std::collections::HashSet;
use std::net::Ipv4Addr;
use std::sync::Arc;

use coracle_api::kinds::Kind;
use coracle_api::status::{FieldErrors, Status};
use coracle_store::{Object, Store, WriteError};
use parking_lot::Mutex;
use rand::Rng as _;
use serde_json::{Value, json};

use crate::answer::Answer;
use crate::object::{meta, text};
use crate::storage;
pub use cidr::{Cidr, ParseCidrError};
pub(crate) use ranges::keep as keep_ranges;

/// Ports that every node may open for Services; upstream's default.
const NODE_PORTS: std::ops::RangeInclusive<u16> = 30000..=32767;

/// Who has which address and port.
pub(crate) struct ServiceAddresses {
    /// The range of the server's own option.
    range: Cidr,
    store: Store,
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    /// Out of these addresses are given, out of the first first.
    ranges: Vec<Cidr>,
    addresses: HashSet<Ipv4Addr>,
    ports: HashSet<u16>,
}

/// What a Service's write takes and, once it is done, gives back. Unless it is settled, all that was taken is given back.
pub(crate) struct Reservation {
    owner: Arc<ServiceAddresses>,
    is_service: bool,
    /// The Service's namespace and name.
    service: (String, String),
    addresses: Vec<Ipv4Addr>,
    ports: Vec<u16>,
    freed_addresses: Vec<Ipv4Addr>,
    freed_ports: Vec<u16>,
}

impl Reservation {
    /// Awaits the write, and does what its outcome means for the addresses.
    ///
    /// A Service is written in a task of its own: a client that hangs up in the middle ends its request, but not the write, and the
    /// addresses must follow the write.
    pub(crate) async fn settle(
        self,
        write: impl Future<Output = Result<Arc<Object>, WriteError>> + Send + 'static,
    ) -> Result<Arc<Object>, WriteError> {
        if !self.is_service {
            return write.await;
        }
        let task = tokio::spawn(async move {
            let written = write.await;
            match &written {
                Ok(_) => self.done().await,
                // It may be on disk: the addresses stay taken until the next start tells.
                Err(WriteError::Unknown(_)) => self.keep(),
                Err(_) => drop(self),
            }
            written
        });
        task.await.unwrap_or(Err(WriteError::Closed))
    }

    async fn done(self) {
        let store = &self.owner.store;
        objects::write(store, &self.addresses, &self.service).await;
        self.owner.forget(&self.freed_addresses, &self.freed_ports);
        // As long as its object is there an address is not given again; whoever waits for that has to find it free by then.
        objects::remove(store, &self.freed_addresses).await;
        self.keep();
    }

    fn keep(mut self) {
        self.addresses.clear();
        self.ports.clear();
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if self.addresses.is_empty() && self.ports.is_empty() {
            return;
        }
        self.owner.forget(&self.addresses, &self.ports);
    }
}

impl ServiceAddresses {
    /// Learns from the store's Services what is taken.
    pub(crate) fn load(range: Cidr, store: &Store) -> Result<Self, Status> {
        let mut taken = Taken::default();
        let listing = store
            .list(&coracle_store::Range::all("services"), None, None, None)
            .map_err(|gone| Status::internal(format!("cannot list services: {gone}")))?;
        for object in &listing.objects {
            let service = storage::decode(object)?;
            taken.addresses.extend(addresses_of(&service));
            taken.ports.extend(ports_of(&service));
        }
        let addresses = Self { range, store: store.clone(), taken: Mutex::new(taken) };
        addresses.set_ranges(addresses.held_ranges());
        Ok(addresses)
    }

    /// The range out of which addresses are given.
    pub(crate) fn range(&self) -> Cidr {
        self.range
    }

    /// Fills in what a Service still needs, and reserves what it asks for by name. Other kinds need nothing.
    pub(crate) fn allocate(
        self: &Arc<Self>,
        kind: &Kind,
        object: &mut Value,
        old: Option<&Value>,
    ) -> Answer<Reservation> {
        let mut reservation = self.reservation(kind);
        if !reservation.is_service {
            return Ok(reservation);
        }
        let mut errors = FieldErrors::new();
        let had_addresses: HashSet<Ipv4Addr> = old.into_iter().flat_map(addresses_of).collect();
        let had_ports: HashSet<u16> = old.into_iter().flat_map(ports_of).collect();
        reservation.service =
            (meta(object, "namespace").to_owned(), meta(object, "name").to_owned());
        let mut taken = self.taken.lock();
        let outcome = self
            .allocate_address(&mut taken, object, &had_addresses, &mut reservation, &mut errors)
            .and_then(|()| {
                allocate_ports(&mut taken, object, &had_ports, &mut reservation, &mut errors)
            });
        // A refused reservation takes the lock again when it is dropped.
        drop(taken);
        outcome?;
        if !errors.is_empty() {
            return Err(Status::invalid(kind, meta(object, "name"), &errors));
        }
        let (kept_addresses, kept_ports) = (addresses_of(object), ports_of(object));
        reservation.freed_addresses =
            had_addresses.into_iter().filter(|address| !kept_addresses.contains(address)).collect();
        reservation.freed_ports =
            had_ports.into_iter().filter(|port| !kept_ports.contains(port)).collect();
        Ok(reservation)
    }

    /// What a deletion will give back.
    pub(crate) fn leave(self: &Arc<Self>, kind: &Kind, old: &Value) -> Reservation {
        let mut reservation = self.reservation(kind);
        if reservation.is_service {
            reservation.freed_addresses = addresses_of(old);
            reservation.freed_ports = ports_of(old);
        }
        reservation
    }

    fn forget(&self, addresses: &[Ipv4Addr], ports: &[u16]) {
        let mut taken = self.taken.lock();
        for address in addresses {
            taken.addresses.remove(address);
        }
        for port in ports {
            taken.ports.remove(port);
        }
    }

    fn reservation(self: &Arc<Self>, kind: &Kind) -> Reservation {
        Reservation {
            owner: self.clone(),
            is_service: kind.group.is_empty() && kind.kind == "Service",
            service: Default::default(),
            addresses: Vec::new(),
            ports: Vec::new(),
            freed_addresses: Vec::new(),
            freed_ports: Vec::new(),
        }
    }

    fn allocate_address(
        &self,
        taken: &mut Taken,
        service: &mut Value,
        had: &HashSet<Ipv4Addr>,
        reservation: &mut Reservation,
        errors: &mut FieldErrors,
    ) -> Answer<()> {
        let asked = text(service, "/spec/clusterIP").to_owned();
        if text(service, "/spec/type") == "ExternalName" || asked == "None" {
            return Ok(());
        }
        let address = if asked.is_empty() {
            self.free_address(taken)
                .ok_or_else(|| Status::internal("failed to allocate a serviceIP: range is full"))?
        } else {
            let address = asked.parse::<Ipv4Addr>();
            if address.as_ref().is_ok_and(|address| had.contains(address)) {
                return Ok(());
            }
            // Validation has said already what is wrong with it, unless it is an IPv6 address, of which we give none.
            let given = address.map_err(|_| MISMATCH.to_owned()).and_then(|address| {
                self.check_wish(taken, address)?;
                Ok(address)
            });
            match given {
                Ok(address) => address,
                Err(refusal) => {
                    let detail = format!("failed to allocate IP {asked}: {refusal}");
                    errors.invalid("spec.clusterIPs", json!([asked]), detail);
                    return Ok(());
                }
            }
        };
        taken.addresses.insert(address);
        reservation.addresses.push(address);
        service["spec"]["clusterIP"] = json!(address.to_string());
        service["spec"]["clusterIPs"] = json!([address.to_string()]);
        Ok(())
    }

    /// Says why an address that was asked for cannot be given.
    fn check_wish(&self, taken: &Taken, address: Ipv4Addr) -> Result<(), String> {
        let Some(range) = taken.ranges.iter().find(|range| range.contains(address)) else {
            return Err(MISMATCH.to_owned());
        };
        if !range.is_usable(address) {
            return Err(format!(
                "the provided IP ({address}) is not in the valid range. The range of valid IPs is {range}"
            ));
        }
        if self.is_taken(taken, address) {
            return Err("provided IP is already allocated".to_owned());
        }
        Ok(())
    }

    /// By a Service, or by somebody who made an object for the address.
    fn is_taken(&self, taken: &Taken, address: Ipv4Addr) -> bool {
        taken.addresses.contains(&address) || objects::exists(&self.store, address)
    }

    /// A free address of the first range that has one, from its upper part first: the lower one is for those that people choose.
    fn free_address(&self, taken: &Taken) -> Option<Ipv4Addr> {
        taken.ranges.iter().find_map(|range| {
            let size = range.size();
            let chosen_by_people = (size / 16).clamp(16, 256).min(size / 2);
            let upper = size.saturating_sub(1).saturating_sub(chosen_by_people);
            let start = if upper == 0 { 0 } else { rand::rng().random_range(0..upper) };
            let upper_offsets = (0..upper).map(|step| chosen_by_people + (start + step) % upper);
            upper_offsets
                .chain(1..chosen_by_people)
                .map(|offset| Ipv4Addr::from(range.base.wrapping_add(offset)))
                .find(|address| range.is_usable(*address) && !self.is_taken(taken, *address))
        })
    }
}

/// As upstream says that no range has the address.
const MISMATCH: &str = "the provided network does not match the current range";

fn allocate_ports(
    taken: &mut Taken,
    service: &mut Value,
    had: &HashSet<u16>,
    reservation: &mut Reservation,
    errors: &mut FieldErrors,
) -> Answer<()> {
    if !needs_node_ports(service) {
        return Ok(());
    }
    let Some(ports) = service.pointer_mut("/spec/ports").and_then(Value::as_array_mut) else {
        return Ok(());
    };
    // Ports that are asked for first, so that no given one gets in their way. A port may serve one protocol each.
    for (index, port) in ports.iter().enumerate() {
        let Some(asked) = port["nodePort"].as_i64().filter(|&asked| asked != 0) else { continue };
        let number = u16::try_from(asked).ok().filter(|number| NODE_PORTS.contains(number));
        if number.is_some_and(|number| had.contains(&number) || reservation.ports.contains(&number))
        {
            continue;
        }
        let path = format!("spec.ports[{index}].nodePort");
        match number {
            None => errors.invalid(
                path.as_str(),
                asked,
                format!(
                    "provided port is not in the valid range. The range of valid ports is {}-{}",
                    NODE_PORTS.start(),
                    NODE_PORTS.end()
                ),
            ),
            Some(number) if taken.ports.contains(&number) => {
                errors.invalid(path.as_str(), asked, "provided port is already allocated");
            }
            Some(number) => {
                taken.ports.insert(number);
                reservation.ports.push(number);
            }
        }
    }
    for port in ports.iter_mut().filter(|port| port["nodePort"].as_i64().unwrap_or(0) == 0) {
        let number = free_port(taken)
            .ok_or_else(|| Status::internal("failed to allocate a nodePort: range is full"))?;
        taken.ports.insert(number);
        reservation.ports.push(number);
        port["nodePort"] = json!(number);
    }
    if text(service, "/spec/type") == "LoadBalancer"
        && text(service, "/spec/externalTrafficPolicy") == "Local"
        && service.pointer("/spec/healthCheckNodePort").and_then(Value::as_i64).unwrap_or(0) == 0
    {
        let number = free_port(taken).ok_or_else(|| {
            Status::internal("failed to allocate a HealthCheck NodePort: range is full")
        })?;
        taken.ports.insert(number);
        reservation.ports.push(number);
        service["spec"]["healthCheckNodePort"] = json!(number);
    }
    Ok(())
}

fn needs_node_ports(service: &Value) -> bool {
    match text(service, "/spec/type") {
        "NodePort" => true,
        "LoadBalancer" => {
            service.pointer("/spec/allocateLoadBalancerNodePorts") != Some(&json!(false))
        }
        _ => false,
    }
}

fn free_port(taken: &Taken) -> Option<u16> {
    let size = NODE_PORTS.end() - NODE_PORTS.start() + 1;
    let start = rand::rng().random_range(0..size);
    (0..size)
        .map(|step| NODE_PORTS.start() + (start + step) % size)
        .find(|port| !taken.ports.contains(port))
}

fn addresses_of(service: &Value) -> Vec<Ipv4Addr> {
    let listed =
        service.pointer("/spec/clusterIPs").and_then(Value::as_array).into_iter().flatten();
    let all = listed.chain(service.pointer("/spec/clusterIP"));
    all.filter_map(|address| address.as_str()?.parse().ok()).collect()
}

fn ports_of(service: &Value) -> Vec<u16> {
    let ports = service.pointer("/spec/ports").and_then(Value::as_array).into_iter().flatten();
    let ports = ports.filter_map(|port| port.get("nodePort"));
    let all = ports.chain(service.pointer("/spec/healthCheckNodePort"));
    all.filter_map(|port| u16::try_from(port.as_u64()?).ok()).filter(|&port| port != 0).collect()
}

#[cfg(test)]
mod tests;
