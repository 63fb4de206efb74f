//! What CSI drivers say of themselves: `CSIDriver`, `CSINode`, `CSIStorageCapacity`; and `VolumeAttachment`, what they are asked to do
//! (`pkg/apis/storage/validation/validation.go`).

use coracle_api::names;
use coracle_api::status::{FieldErrors, Path};
use serde_json::{Value, json};

use crate::rules::Rules;
use crate::rules::checks::{
    IMMUTABLE, immutable, label_selector, not_negative, one_of, quantity_not_negative, unique,
};
use crate::rules::generic::same;
use crate::rules::json::{Read, default, default_zero, object};

/// The name of a driver becomes a part of labels and paths.
const DRIVER_NAME_BYTES: usize = 63;
const NODE_ID_BYTES: usize = 256;
/// The shortest and the longest life of a token for a driver.
const TOKEN_MIN_SECONDS: i64 = 600;
const TOKEN_MAX_SECONDS: i64 = 1 << 32;
const UPDATE_PERIOD_MIN_SECONDS: i64 = 10;

pub static DRIVER: Rules = Rules {
    default: |driver| {
        let spec = object(driver, "spec");
        default(spec, "attachRequired", true);
        for field in ["podInfoOnMount", "storageCapacity", "requiresRepublish", "seLinuxMount"] {
            default(spec, field, false);
        }
        default(spec, "fsGroupPolicy", "ReadWriteOnceWithFSType");
        default_zero(spec, "volumeLifecycleModes", json!(["Persistent"]));
    },
    validate: |driver, errors| {
        let (spec, path) = (&driver["spec"], Path::new("spec"));
        let policies = ["File", "None", "ReadWriteOnceWithFSType"];
        one_of(&spec["fsGroupPolicy"], &policies, path.child("fsGroupPolicy"), errors);
        token_requests(&spec["tokenRequests"], &path.child("tokenRequests"), errors);
        for mode in spec["volumeLifecycleModes"].items() {
            let modes = ["Ephemeral", "Persistent"];
            one_of(mode, &modes, path.child("volumeLifecycleModes"), errors);
        }
        let period = &spec["nodeAllocatableUpdatePeriodSeconds"];
        if period.is_set() && period.int() < UPDATE_PERIOD_MIN_SECONDS {
            let at = path.child("nodeAllocatableUpdatePeriodSeconds");
            errors.invalid(at, period.clone(), "must be greater than or equal to 10 seconds");
        }
    },
    validate_update: |new, old, errors| {
        // Upstream misspells the path of the first.
        for (field, shown) in [
            ("attachRequired", "attachedRequired"),
            ("volumeLifecycleModes", "volumeLifecycleModes"),
        ] {
            let (new, old) = (&new["spec"][field], &old["spec"][field]);
            immutable(new, old, Path::new("spec").child(shown), errors);
        }
    },
    ..Rules::GENERIC
};

pub static NODE: Rules = Rules {
    validate: |node, errors| {
        let path = Path::new("spec").child("drivers");
        let mut seen = Vec::new();
        for (index, driver) in node["spec"]["drivers"].items().iter().enumerate() {
            let at = path.index(index);
            node_driver(driver, &at, errors);
            unique(&mut seen, driver["name"].text(), at.child("name"), errors);
        }
    },
    validate_update: |new, old, errors| {
        for driver in new["spec"]["drivers"].items() {
            let before = old["spec"]["drivers"].items().iter();
            let before = before.filter(|before| before["name"] == driver["name"]);
            for _ in before.filter(|before| !same(before, driver)) {
                errors.invalid("CSINodeDriver", driver.clone(), IMMUTABLE);
            }
        }
    },
    ..Rules::GENERIC
};

pub static CAPACITY: Rules = Rules {
    validate: |capacity, errors| {
        label_selector(&capacity["nodeTopology"], &Path::new("nodeTopology"), errors);
        let class = capacity["storageClassName"].text();
        errors.invalid_each("storageClassName", class, names::dns_subdomain(class));
        for field in ["capacity", "maximumVolumeSize"] {
            if capacity[field].is_set() {
                quantity_not_negative(&capacity[field], &Path::new(field), errors);
            }
        }
    },
    validate_update: |new, old, errors| {
        for field in ["nodeTopology", "storageClassName"] {
            immutable(&new[field], &old[field], field, errors);
        }
    },
    ..Rules::GENERIC
};

pub static ATTACHMENT: Rules = Rules {
    validate: |attachment, errors| {
        let (spec, path) = (&attachment["spec"], Path::new("spec"));
        driver_name(&spec["attacher"], &path.child("attacher"), errors);
        source(&spec["source"], &path.child("source"), errors);
        let node = spec["nodeName"].text();
        errors.invalid_each(path.child("nodeName"), node, names::dns_subdomain(node));
    },
    validate_update: |new, old, errors| {
        immutable(&new["spec"], &old["spec"], "spec", errors);
    },
    ..Rules::GENERIC
};

/// Checks the name of a driver, which must be given.
pub fn driver_name(name: &Value, path: &Path, errors: &mut FieldErrors) {
    let name = name.text();
    if name.is_empty() {
        errors.required(path, "");
        return;
    }
    if name.len() > DRIVER_NAME_BYTES {
        errors.too_long(path, DRIVER_NAME_BYTES);
    }
    errors.invalid_each(path, name, names::dns_subdomain(&name.to_lowercase()));
}

fn token_requests(requests: &Value, path: &Path, errors: &mut FieldErrors) {
    let mut seen = Vec::new();
    for (index, request) in requests.items().iter().enumerate() {
        let at = path.index(index);
        unique(&mut seen, request["audience"].text(), at.child("audience"), errors);
        let seconds = &request["expirationSeconds"];
        if seconds.is_set() && seconds.int() < TOKEN_MIN_SECONDS {
            let detail = "may not specify a duration less than 10 minutes";
            errors.invalid(at.child("expirationSeconds"), seconds.clone(), detail);
        }
        if seconds.int() > TOKEN_MAX_SECONDS {
            let detail = "may not specify a duration larger than 2^32 seconds";
            errors.invalid(at.child("expirationSeconds"), seconds.clone(), detail);
        }
    }
}

fn node_driver(driver: &Value, path: &Path, errors: &mut FieldErrors) {
    driver_name(&driver["name"], &path.child("name"), errors);
    let node = driver["nodeID"].text();
    if node.is_empty() {
        errors.required(path.child("nodeID"), "");
    } else if node.len() > NODE_ID_BYTES {
        let detail = format!("must be {NODE_ID_BYTES} characters or less");
        errors.invalid(path.child("nodeID"), node, detail);
    }
    not_negative(&driver["allocatable"]["count"], path.child("allocatable"), errors);
    let mut seen: Vec<&str> = Vec::new();
    for key in driver["topologyKeys"].items() {
        if key.text().is_empty() {
            errors.required(path, "");
        }
        unique(&mut seen, key.text(), path, errors);
        for message in names::qualified_name(key.text()) {
            errors.invalid(path, driver["topologyKeys"].clone(), message);
        }
    }
}

fn source(source: &Value, path: &Path, errors: &mut FieldErrors) {
    const ONE: &str = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
    let (inline, volume) = (&source["inlineVolumeSpec"], &source["persistentVolumeName"]);
    match (inline.is_set(), volume.is_set()) {
        (false, false) => errors.required(path, ONE),
        (true, true) => errors.forbidden(path, ONE),
        (false, true) if volume.text().is_empty() => {
            let at = path.child("persistentVolumeName");
            errors.required(at, "must specify non empty persistentVolumeName");
        }
        (false, true) => {
            let (at, name) = (path.child("persistentVolumeName"), volume.text());
            errors.invalid_each(at, name, names::dns_subdomain(name));
        }
        (true, false) => (),
    }
}
