//! Devices: `ResourceClaim` and its template ask for them, `DeviceClass` describes them, `ResourceSlice` offers them, `DeviceTaintRule`
//! keeps pods away from them (`pkg/apis/resource/validation/validation.go`).

use coracle_api::names;
use coracle_api::status::{FieldErrors, Path};
use serde_json::Value;

use crate::rules::Rules;
use crate::rules::checks::{immutable, one_of, required, required_name, required_one_of, unique};
use crate::rules::json::{Read, default, default_zero, each, object, with};

/// Upstream's bounds of one claim, selector list and slice.
const MAX_REQUESTS: usize = 32;
const MAX_SELECTORS: usize = 32;
const MAX_ALTERNATIVES: usize = 8;
const MAX_CONSTRAINTS: usize = 32;
const MAX_DEVICES: usize = 128;
const EFFECTS: [&str; 3] = ["NoExecute", "NoSchedule", "None"];
const ONE_OF_TWO: &str = "exactly one of `exactly` or `firstAvailable` is required";

pub static CLAIM: Rules = Rules {
    default: |claim| default_claim(object(claim, "spec")),
    validate: |claim, errors| validate_claim(&claim["spec"], &Path::new("spec"), errors),
    validate_update: same_spec,
    ..Rules::GENERIC
};

pub static CLAIM_TEMPLATE: Rules = Rules {
    default: |template| default_claim(object(object(template, "spec"), "spec")),
    validate: |template, errors| {
        let path = Path::new("spec").child("spec");
        validate_claim(&template["spec"]["spec"], &path, errors);
    },
    validate_update: same_spec,
    ..Rules::GENERIC
};

pub static CLASS: Rules = Rules {
    validate: |class, errors| {
        let path = Path::new("spec").child("selectors");
        selectors(&class["spec"]["selectors"], &path, errors);
    },
    ..Rules::GENERIC
};

pub static SLICE: Rules = Rules {
    default: |slice| {
        each(object(slice, "spec"), "devices", |device| each(device, "taints", default_taint));
    },
    validate: validate_slice,
    validate_update: |new, old, errors| {
        let (new, old, path) = (&new["spec"], &old["spec"], Path::new("spec"));
        immutable(&new["driver"], &old["driver"], path.child("driver"), errors);
        let pool = path.child("pool").child("name");
        immutable(&new["pool"]["name"], &old["pool"]["name"], pool, errors);
        immutable(&new["nodeName"], &old["nodeName"], path.child("nodeName"), errors);
    },
    fields: |slice| {
        let spec = &slice["spec"];
        vec![
            ("spec.driver", spec["driver"].text().to_owned()),
            ("spec.nodeName", spec["nodeName"].text().to_owned()),
        ]
    },
    ..Rules::GENERIC
};

pub static TAINT_RULE: Rules = Rules {
    default: |rule| with(object(rule, "spec"), "taint", default_taint),
    validate: |rule, errors| {
        let path = Path::new("spec");
        taint(&rule["spec"]["taint"], &path.child("taint"), errors);
    },
    ..Rules::GENERIC
};

fn same_spec(new: &Value, old: &Value, errors: &mut FieldErrors) {
    immutable(&new["spec"], &old["spec"], "spec", errors);
}

fn default_claim(spec: &mut Value) {
    each(object(spec, "devices"), "requests", |request| {
        with(request, "exactly", default_request);
        each(request, "firstAvailable", default_request);
    });
}

fn default_request(request: &mut Value) {
    default_zero(request, "allocationMode", "ExactCount");
    if request["allocationMode"] == "ExactCount" {
        default_zero(request, "count", 1);
    }
    each(request, "tolerations", |toleration| default_zero(toleration, "operator", "Equal"));
}

fn default_taint(taint: &mut Value) {
    default(taint, "timeAdded", crate::object::now());
}

fn validate_claim(spec: &Value, path: &Path, errors: &mut FieldErrors) {
    let (devices, path) = (&spec["devices"], path.child("devices"));
    let requests = path.child("requests");
    if devices["requests"].size() > MAX_REQUESTS {
        errors.too_many(&requests, devices["requests"].size(), MAX_REQUESTS);
    }
    let mut seen = Vec::new();
    for (index, request) in devices["requests"].items().iter().enumerate() {
        let at = requests.index(index);
        required_name(&request["name"], names::dns_label, at.child("name"), errors);
        unique(&mut seen, request["name"].text(), at.child("name"), errors);
        validate_request(request, &at, errors);
    }
    if devices["constraints"].size() > MAX_CONSTRAINTS {
        errors.too_many(path.child("constraints"), devices["constraints"].size(), MAX_CONSTRAINTS);
    }
    for (list, at) in [("constraints", path.child("constraints")), ("config", path.child("config"))]
    {
        for (index, entry) in devices[list].items().iter().enumerate() {
            for (number, name) in entry["requests"].items().iter().enumerate() {
                let request = name.text().split('/').next().unwrap_or_default();
                if !seen.contains(&request) {
                    let at = at.index(index).child("requests").index(number);
                    let detail = "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'";
                    errors.invalid(at, name.clone(), detail);
                }
            }
        }
    }
}

fn validate_request(request: &Value, path: &Path, errors: &mut FieldErrors) {
    let (exactly, first) = (&request["exactly"], &request["firstAvailable"]);
    match (exactly.is_set(), first.size() > 0) {
        (false, false) => errors.required(path, ONE_OF_TWO),
        (true, true) => {
            let detail = format!("{ONE_OF_TWO}, but multiple fields are set");
            errors.invalid(path, Value::Null, detail);
        }
        (true, false) => one_request(exactly, &path.child("exactly"), errors),
        (false, true) => {
            let at = path.child("firstAvailable");
            if first.size() > MAX_ALTERNATIVES {
                errors.too_many(&at, first.size(), MAX_ALTERNATIVES);
            }
            let mut seen = Vec::new();
            for (index, alternative) in first.items().iter().enumerate() {
                let at = at.index(index);
                let name = &alternative["name"];
                required_name(name, names::dns_label, at.child("name"), errors);
                unique(&mut seen, name.text(), at.child("name"), errors);
                one_request(alternative, &at, errors);
            }
        }
    }
}

fn one_request(request: &Value, path: &Path, errors: &mut FieldErrors) {
    let class = &request["deviceClassName"];
    required_name(class, names::dns_subdomain, path.child("deviceClassName"), errors);
    selectors(&request["selectors"], &path.child("selectors"), errors);
    let count = &request["count"];
    match request["allocationMode"].text() {
        "All" if count.int() != 0 => {
            let detail = "must not be specified when allocationMode is 'All'";
            errors.invalid(path.child("count"), count.clone(), detail);
        }
        "ExactCount" if count.int() <= 0 => {
            errors.invalid(path.child("count"), count.int(), "must be greater than zero");
        }
        "All" | "ExactCount" => (),
        other => {
            let at = path.child("allocationMode");
            errors.not_supported(at, other, &["All", "ExactCount"]);
        }
    }
    for (index, toleration) in request["tolerations"].items().iter().enumerate() {
        let at = path.child("tolerations").index(index);
        let operators = ["Equal", "Exists"];
        required_one_of(&toleration["operator"], &operators, at.child("operator"), errors);
        one_of(&toleration["effect"], &EFFECTS, at.child("effect"), errors);
    }
}

/// Checks the shape of selectors; that their expressions can be evaluated is found by who evaluates them.
fn selectors(selectors: &Value, path: &Path, errors: &mut FieldErrors) {
    if selectors.size() > MAX_SELECTORS {
        errors.too_many(path, selectors.size(), MAX_SELECTORS);
    }
    for (index, selector) in selectors.items().iter().enumerate() {
        let at = path.index(index).child("cel");
        if selector["cel"].is_set() {
            required(&selector["cel"]["expression"], at.child("expression"), errors);
        } else {
            errors.required(at, "");
        }
    }
}

fn validate_slice(slice: &Value, errors: &mut FieldErrors) {
    let (spec, path) = (&slice["spec"], Path::new("spec"));
    required_name(&spec["driver"], names::dns_subdomain, path.child("driver"), errors);
    let pool = path.child("pool");
    required(&spec["pool"]["name"], pool.child("name"), errors);
    if spec["pool"]["resourceSliceCount"].int() <= 0 {
        let count = spec["pool"]["resourceSliceCount"].int();
        errors.invalid(pool.child("resourceSliceCount"), count, "must be greater than zero");
    }
    let places = ["nodeName", "nodeSelector", "allNodes", "perDeviceNodeSelection"];
    let given = places.iter().filter(|field| {
        let value = &spec[**field];
        value.is_object() || value.flag() || !value.text().is_empty()
    });
    match given.count() {
        0 => {
            let detail = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required";
            errors.required(&path, detail);
        }
        1 => (),
        _ => {
            let detail = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required, but multiple fields are set";
            errors.invalid(&path, Value::Null, detail);
        }
    }
    let devices = path.child("devices");
    if spec["devices"].size() > MAX_DEVICES {
        errors.too_many(&devices, spec["devices"].size(), MAX_DEVICES);
    }
    let mut seen = Vec::new();
    for (index, device) in spec["devices"].items().iter().enumerate() {
        let at = devices.index(index);
        required_name(&device["name"], names::dns_label, at.child("name"), errors);
        unique(&mut seen, device["name"].text(), at.child("name"), errors);
        for (index, found) in device["taints"].items().iter().enumerate() {
            taint(found, &at.child("taints").index(index), errors);
        }
    }
}

fn taint(taint: &Value, path: &Path, errors: &mut FieldErrors) {
    let key = taint["key"].text();
    errors.invalid_each(path.child("key"), key, names::qualified_name(key));
    let value = taint["value"].text();
    errors.invalid_each(path.child("value"), value, names::label_value(value));
    required_one_of(&taint["effect"], &EFFECTS, path.child("effect"), errors);
}
