//! Configuration, quotas and who may do what.

use serde_json::Value;

use super::Columns;
use super::cells::{AGE, NAME, age, boolean, integer, name, text};
use crate::rules::json::Read;

pub static CONFIG_MAP: Columns = Columns {
    definitions: &[NAME, text("Data", "Data contains the configuration data."), AGE],
    cells: |map, now| {
        vec![name(map), (map["data"].size() + map["binaryData"].size()).into(), age(map, now)]
    },
};

pub static SECRET: Columns = Columns {
    definitions: &[
        NAME,
        text("Type", "Used to facilitate programmatic handling of secret data."),
        text("Data", "Data contains the secret data."),
        AGE,
    ],
    cells: |secret, now| {
        vec![
            name(secret),
            secret["type"].text().into(),
            secret["data"].size().into(),
            age(secret, now),
        ]
    },
};

pub static SERVICE_ACCOUNT: Columns = Columns {
    definitions: &[
        NAME,
        text(
            "Secrets",
            "Secrets is a list of the secrets in the same namespace that pods running using this ServiceAccount are allowed to use.",
        ),
        AGE,
    ],
    cells: |account, now| vec![name(account), account["secrets"].size().into(), age(account, now)],
};

pub static RESOURCE_QUOTA: Columns = Columns {
    definitions: &[
        NAME,
        text(
            "Request",
            "Request represents a minimum amount of cpu/memory that a container may consume.",
        ),
        text(
            "Limit",
            "Limits control the maximum amount of cpu/memory that a container may use independent of contention on the node.",
        ),
        AGE,
    ],
    cells: |quota, now| {
        let status = &quota["status"];
        let mut names: Vec<&String> = status["hard"].entries().map(|(name, _)| name).collect();
        names.sort_unstable();
        let (limits, requests): (Vec<&String>, Vec<&String>) =
            names.into_iter().partition(|name| name.starts_with("limits."));
        let shown = |names: Vec<&String>| {
            let amount =
                |list: &str, name: &str| status[list].get(name).map_or("0", Read::text).to_owned();
            let texts = names
                .into_iter()
                .map(|name| format!("{name}: {}/{}", amount("used", name), amount("hard", name)));
            Value::from(texts.collect::<Vec<_>>().join(", "))
        };
        vec![name(quota), shown(requests), shown(limits), age(quota, now)]
    },
};

pub static ROLE_BINDING: Columns = Columns {
    definitions: &[
        NAME,
        text(
            "Role",
            "RoleRef can reference a Role in the current namespace or a ClusterRole in the global namespace.",
        ),
        AGE,
        text("Users", "Users in the roleBinding").wide(),
        text("Groups", "Groups in the roleBinding").wide(),
        text("ServiceAccounts", "ServiceAccounts in the roleBinding").wide(),
    ],
    cells: |binding, now| {
        let role = &binding["roleRef"];
        let subjects = |kind: &str| {
            let subjects =
                binding["subjects"].items().iter().filter(|subject| subject["kind"] == kind);
            let names = subjects.map(|subject| match subject["namespace"].text() {
                "" => subject["name"].text().to_owned(),
                namespace => format!("{namespace}/{}", subject["name"].text()),
            });
            Value::from(names.collect::<Vec<_>>().join(", "))
        };
        vec![
            name(binding),
            format!("{}/{}", role["kind"].text(), role["name"].text()).into(),
            age(binding, now),
            subjects("User"),
            subjects("Group"),
            subjects("ServiceAccount"),
        ]
    },
};

pub static DISRUPTION_BUDGET: Columns = Columns {
    definitions: &[
        NAME,
        text("Min Available", "The minimum number of pods that must be available."),
        text("Max Unavailable", "The maximum number of pods that may be unavailable."),
        integer(
            "Allowed Disruptions",
            "Calculated number of pods that may be disrupted at this time.",
        ),
        AGE,
    ],
    cells: |budget, now| {
        let spec = &budget["spec"];
        vec![
            name(budget),
            count_or_percent(&spec["minAvailable"]),
            count_or_percent(&spec["maxUnavailable"]),
            budget["status"]["disruptionsAllowed"].int().into(),
            age(budget, now),
        ]
    },
};

pub static PRIORITY_CLASS: Columns = Columns {
    definitions: &[
        NAME,
        integer("Value", "value represents the integer value of this priority class."),
        boolean(
            "Global-Default",
            "globalDefault specifies whether this PriorityClass should be considered as the default priority.",
        ),
        AGE,
        text(
            "PreemptionPolicy",
            "preemptionPolicy is the Policy for preempting pods with lower priority.",
        ),
    ],
    cells: |class, now| {
        vec![
            name(class),
            class["value"].int().into(),
            class["globalDefault"].flag().into(),
            age(class, now),
            class["preemptionPolicy"].text().into(),
        ]
    },
};

fn count_or_percent(value: &Value) -> Value {
    match value {
        Value::Number(number) => number.to_string().into(),
        Value::String(percent) => percent.as_str().into(),
        _ => "N/A".into(),
    }
}
