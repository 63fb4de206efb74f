//! Cluster addresses and node ports of Services: each belongs to one Service at a time.
//!
//! The Services in the store say which are taken; this is the same knowledge in a form that can be asked quickly. It is read once at
//! start, and kept because every write passes here: an address is reserved before its Service is written, and given back if it is not.

use std::collections::HashSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;
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

/// Ports that every node may open for Services; upstream's default.
const NODE_PORTS: std::ops::RangeInclusive<u16> = 30000..=32767;

/// A range of IPv4 addresses, as `10.96.0.0/16`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cidr {
    base: u32,
    prefix_bits: u8,
}

/// The text is no range of IPv4 addresses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an IPv4 range such as 10.96.0.0/16")]
pub struct ParseCidrError(String);

impl Cidr {
    /// The range whose addresses share their first bits with `base`. We give no IPv6 addresses: such a range is empty.
    pub fn new(base: impl Into<IpAddr>, prefix_bits: u8) -> Self {
        match base.into() {
            IpAddr::V4(base) => {
                let prefix_bits = prefix_bits.min(32);
                let mask = u32::MAX.checked_shl(32 - u32::from(prefix_bits)).unwrap_or(0);
                Self { base: u32::from(base) & mask, prefix_bits }
            }
            IpAddr::V6(_) => Self { base: 0, prefix_bits: 32 },
        }
    }

    /// The first address that a Service can have: that of the `kubernetes` Service.
    pub fn first_address(self) -> IpAddr {
        IpAddr::V4(Ipv4Addr::from(self.base.wrapping_add(1)))
    }

    /// Whether the address lies in the range.
    pub fn contains(self, address: Ipv4Addr) -> bool {
        (u32::from(address) ^ self.base).checked_shr(32 - u32::from(self.prefix_bits)).unwrap_or(0)
            == 0
    }

    fn size(self) -> u32 {
        1u32.checked_shl(32 - u32::from(self.prefix_bits)).unwrap_or(u32::MAX)
    }

    /// Neither the base nor the broadcast address.
    fn is_usable(self, address: Ipv4Addr) -> bool {
        let offset = u32::from(address).wrapping_sub(self.base);
        offset >= 1 && offset < self.size().saturating_sub(1)
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", Ipv4Addr::from(self.base), self.prefix_bits)
    }
}

impl FromStr for Cidr {
    type Err = ParseCidrError;

    fn from_str(text: &str) -> Result<Self, ParseCidrError> {
        let read = || {
            let (base, bits) = text.split_once('/')?;
            let bits: u8 = bits.parse().ok().filter(|&bits| bits <= 32)?;
            Some(Self::new(base.parse::<Ipv4Addr>().ok()?, bits))
        };
        read().ok_or_else(|| ParseCidrError(text.to_owned()))
    }
}

/// Who has which address and port.
pub(crate) struct ServiceAddresses {
    range: Cidr,
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    addresses: HashSet<Ipv4Addr>,
    ports: HashSet<u16>,
}

/// What a Service's write takes and, once it is done, gives back. Unless it is settled, all that was taken is given back.
pub(crate) struct Reservation {
    owner: Arc<ServiceAddresses>,
    is_service: bool,
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
                Ok(_) => self.done(),
                // It may be on disk: the addresses stay taken until the next start tells.
                Err(WriteError::Unknown(_)) => self.keep(),
                Err(_) => drop(self),
            }
            written
        });
        task.await.unwrap_or(Err(WriteError::Closed))
    }

    fn done(self) {
        let mut taken = self.owner.taken.lock();
        for address in &self.freed_addresses {
            taken.addresses.remove(address);
        }
        for port in &self.freed_ports {
            taken.ports.remove(port);
        }
        drop(taken);
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
        let mut taken = self.owner.taken.lock();
        for address in &self.addresses {
            taken.addresses.remove(address);
        }
        for port in &self.ports {
            taken.ports.remove(port);
        }
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
        Ok(Self { range, taken: Mutex::new(taken) })
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

    fn reservation(self: &Arc<Self>, kind: &Kind) -> Reservation {
        Reservation {
            owner: self.clone(),
            is_service: kind.group.is_empty() && kind.kind == "Service",
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
            let Ok(address) = asked.parse::<Ipv4Addr>() else {
                // Validation has said already what is wrong with it, unless it is an IPv6 address, of which we give none.
                errors.invalid(
                    "spec.clusterIPs",
                    json!([asked]),
                    format!("failed to allocate IP {asked}: {}", self.not_in_range(&asked)),
                );
                return Ok(());
            };
            if had.contains(&address) {
                return Ok(());
            }
            let refusal = if !self.range.contains(address) || !self.range.is_usable(address) {
                Some(self.not_in_range(&asked))
            } else if taken.addresses.contains(&address) {
                Some("provided IP is already allocated".to_owned())
            } else {
                None
            };
            if let Some(refusal) = refusal {
                errors.invalid(
                    "spec.clusterIPs",
                    json!([asked]),
                    format!("failed to allocate IP {asked}: {refusal}"),
                );
                return Ok(());
            }
            address
        };
        taken.addresses.insert(address);
        reservation.addresses.push(address);
        service["spec"]["clusterIP"] = json!(address.to_string());
        service["spec"]["clusterIPs"] = json!([address.to_string()]);
        Ok(())
    }

    fn not_in_range(&self, asked: &str) -> String {
        format!(
            "the provided IP ({asked}) is not in the valid range. The range of valid IPs is {}",
            self.range
        )
    }

    /// A free address, from the upper part first: the lower one is for those that people choose.
    fn free_address(&self, taken: &Taken) -> Option<Ipv4Addr> {
        let size = self.range.size();
        let chosen_by_people = (size / 16).clamp(16, 256).min(size / 2);
        let upper = size.saturating_sub(1).saturating_sub(chosen_by_people);
        let start = if upper == 0 { 0 } else { rand::rng().random_range(0..upper) };
        let upper_offsets = (0..upper).map(|step| chosen_by_people + (start + step) % upper);
        upper_offsets
            .chain(1..chosen_by_people)
            .map(|offset| Ipv4Addr::from(self.range.base.wrapping_add(offset)))
            .find(|address| self.range.is_usable(*address) && !taken.addresses.contains(address))
    }
}

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
mod tests {
    use super::*;

    fn addresses(range: &str) -> Arc<ServiceAddresses> {
        Arc::new(ServiceAddresses { range: range.parse().unwrap(), taken: Mutex::default() })
    }

    fn service_kind() -> &'static Kind {
        coracle_api::kinds::by_kind("", "v1", "Service").unwrap()
    }

    #[test]
    fn ranges_are_read_and_counted() {
        let range: Cidr = "10.96.7.9/16".parse().unwrap();
        assert_eq!(range.to_string(), "10.96.0.0/16");
        assert_eq!(range.first_address(), Ipv4Addr::new(10, 96, 0, 1));
        assert!(
            range.contains(Ipv4Addr::new(10, 96, 255, 1))
                && !range.contains(Ipv4Addr::new(10, 97, 0, 1))
        );
        assert!("10.0.0.0/33".parse::<Cidr>().is_err() && "x".parse::<Cidr>().is_err());
    }

    #[test]
    fn every_service_gets_its_own_until_none_is_left() {
        let addresses = addresses("10.0.0.0/28");
        let mut seen = HashSet::new();
        for _ in 0..14 {
            let mut service =
                json!({ "metadata": { "name": "a" }, "spec": { "type": "ClusterIP" } });
            addresses.allocate(service_kind(), &mut service, None).unwrap().keep();
            assert!(seen.insert(service["spec"]["clusterIP"].as_str().unwrap().to_owned()));
        }
        let mut service = json!({ "metadata": { "name": "a" }, "spec": { "type": "ClusterIP" } });
        assert_eq!(addresses.allocate(service_kind(), &mut service, None).err().unwrap().code, 500);
        let gone = json!({ "spec": { "clusterIP": seen.iter().next().unwrap() } });
        addresses.leave(service_kind(), &gone).done();
        addresses.allocate(service_kind(), &mut service, None).unwrap().keep();
        assert_eq!(service["spec"]["clusterIP"], gone["spec"]["clusterIP"]);
    }

    #[test]
    fn what_is_not_stored_is_given_back() {
        let addresses = addresses("10.0.0.0/24");
        let wish = || {
            json!({ "metadata": { "name": "a" }, "spec": {
                "type": "NodePort", "clusterIP": "10.0.0.7", "ports": [{ "port": 80, "nodePort": 30007 }, { "port": 81 }],
            } })
        };
        drop(addresses.allocate(service_kind(), &mut wish(), None).unwrap());
        let mut stored = wish();
        addresses.allocate(service_kind(), &mut stored, None).unwrap().keep();
        assert!(NODE_PORTS.contains(
            &u16::try_from(stored["spec"]["ports"][1]["nodePort"].as_u64().unwrap()).unwrap()
        ));
        let refused = addresses.allocate(service_kind(), &mut wish(), None).err().unwrap();
        assert_eq!(refused.code, 422);
        assert!(
            refused
                .message
                .contains("failed to allocate IP 10.0.0.7: provided IP is already allocated"),
            "{refused}"
        );
        assert!(refused.message.contains("provided port is already allocated"), "{refused}");
        // The Service itself may keep what it has.
        let mut same = stored.clone();
        addresses.allocate(service_kind(), &mut same, Some(&stored)).unwrap().keep();
        assert_eq!(same, stored);
    }

    #[test]
    fn wishes_outside_the_ranges_are_refused() {
        let addresses = addresses("10.0.0.0/24");
        let mut wish = json!({ "metadata": { "name": "a" }, "spec": {
            "type": "NodePort", "clusterIP": "10.0.1.7", "ports": [{ "port": 80, "nodePort": 80 }],
        } });
        let refused = addresses.allocate(service_kind(), &mut wish, None).err().unwrap();
        assert!(refused.message.contains("The range of valid IPs is 10.0.0.0/24"), "{refused}");
        assert!(refused.message.contains("The range of valid ports is 30000-32767"), "{refused}");
    }
}
