//! Jobs, CronJobs, autoscalers and the scale of things.

use coracle_api::time;
use jiff::Timestamp;
use serde_json::Value;

use super::Columns;
use super::cells::{
    AGE, CONTAINERS, IMAGES, NAME, age, boolean, containers, human, integer, is_true, name, or,
    seconds_between, selector, since, text,
};
use crate::rules::json::Read;

const SELECTOR: super::Column =
    text("Selector", "A label query over pods that should match the pod count.").wide();

pub static JOB: Columns = Columns {
    definitions: &[
        NAME,
        text("Status", "Status of the job."),
        text("Completions", "The number of pods which reached phase Succeeded."),
        text("Duration", "Time required to complete the job."),
        AGE,
        CONTAINERS,
        IMAGES,
        SELECTOR,
    ],
    cells: |job, now| {
        let [names, images] = containers(&job["spec"]["template"]);
        vec![
            name(job),
            job_status(job).into(),
            completions(job).into(),
            job_duration(job, now).into(),
            age(job, now),
            names,
            images,
            selector(&job["spec"]["selector"]),
        ]
    },
};

pub static CRON_JOB: Columns = Columns {
    definitions: &[
        NAME,
        text("Schedule", "The schedule in Cron format, see https://en.wikipedia.org/wiki/Cron."),
        text("Timezone", "The time zone name for the given schedule."),
        boolean("Suspend", "This flag tells the controller to suspend subsequent executions."),
        integer("Active", "A list of pointers to currently running jobs."),
        text(
            "Last Schedule",
            "Information when was the last time the job was successfully scheduled.",
        ),
        AGE,
        CONTAINERS,
        IMAGES,
        SELECTOR,
    ],
    cells: |object, now| {
        let (spec, status) = (&object["spec"], &object["status"]);
        let template = &spec["jobTemplate"]["spec"];
        let [names, images] = containers(&template["template"]);
        let last = &status["lastScheduleTime"];
        vec![
            name(object),
            spec["schedule"].text().into(),
            or(spec["timeZone"].text(), "<none>"),
            // A truth in a column of truths, yet upstream sends it as text.
            if spec["suspend"].flag() { "True" } else { "False" }.into(),
            status["active"].size().into(),
            if last.is_set() { since(last, now).into() } else { "<none>".into() },
            age(object, now),
            names,
            images,
            selector(&template["selector"]),
        ]
    },
};

pub static AUTOSCALER: Columns = Columns {
    definitions: &[
        NAME,
        text("Reference", "scaleTargetRef points to the target resource to scale."),
        text(
            "Targets",
            "metrics contains the specifications for which to use to calculate the desired replica count.",
        ),
        text("MinPods", "minReplicas is the lower limit for the number of replicas."),
        text("MaxPods", "maxReplicas is the upper limit for the number of replicas."),
        text(
            "Replicas",
            "currentReplicas is current number of replicas of pods managed by this autoscaler.",
        ),
        AGE,
    ],
    cells: |object, now| {
        let (spec, status) = (&object["spec"], &object["status"]);
        let target = &spec["scaleTargetRef"];
        let min = &spec["minReplicas"];
        vec![
            name(object),
            format!("{}/{}", target["kind"].text(), target["name"].text()).into(),
            metrics(spec["metrics"].items(), status["currentMetrics"].items()).into(),
            if min.is_set() { min.int().to_string() } else { "<unset>".to_owned() }.into(),
            spec["maxReplicas"].int().into(),
            status["currentReplicas"].int().into(),
            age(object, now),
        ]
    },
};

pub static SCALE: Columns = Columns {
    definitions: &[
        NAME,
        integer("Desired", "replicas is the desired number of instances for the scaled object."),
        integer(
            "Available",
            "replicas is the actual number of observed instances of the scaled object.",
        ),
        AGE,
    ],
    cells: |object, now| {
        let (wanted, actual) =
            (object["spec"]["replicas"].int(), object["status"]["replicas"].int());
        vec![name(object), wanted.into(), actual.into(), age(object, now)]
    },
};

fn job_status(job: &Value) -> &'static str {
    if is_true(job, "Complete") {
        "Complete"
    } else if is_true(job, "Failed") {
        "Failed"
    } else if job["metadata"]["deletionTimestamp"].is_set() {
        "Terminating"
    } else if is_true(job, "Suspended") {
        "Suspended"
    } else if is_true(job, "FailureTarget") {
        "FailureTarget"
    } else {
        "Running"
    }
}

fn completions(job: &Value) -> String {
    let (wanted, parallel) = (&job["spec"]["completions"], job["spec"]["parallelism"].int());
    let done = job["status"]["succeeded"].int();
    if wanted.is_set() {
        format!("{done}/{}", wanted.int())
    } else if parallel > 1 {
        format!("{done}/1 of {parallel}")
    } else {
        format!("{done}/1")
    }
}

fn job_duration(job: &Value, now: Timestamp) -> String {
    let Some(start) = time::parse(job["status"]["startTime"].text()) else { return String::new() };
    let end = time::parse(job["status"]["completionTime"].text()).unwrap_or(now);
    human(seconds_between(start, end))
}

fn metrics(specs: &[Value], statuses: &[Value]) -> String {
    /// More do not fit the cell.
    const MAX: usize = 2;
    if specs.is_empty() {
        return "<none>".to_owned();
    }
    let none = Value::Null;
    let texts: Vec<String> = specs
        .iter()
        .enumerate()
        .map(|(index, spec)| metric(spec, statuses.get(index).unwrap_or(&none)))
        .collect();
    match texts.get(MAX..) {
        Some(rest) if !rest.is_empty() => {
            format!("{} + {} more...", texts[..MAX].join(", "), rest.len())
        }
        _ => texts.join(", "),
    }
}

fn metric(spec: &Value, status: &Value) -> String {
    let kind = match spec["type"].text() {
        "External" => "external",
        "Pods" => "pods",
        "Object" => "object",
        "Resource" => "resource",
        "ContainerResource" => "containerResource",
        _ => return "<unknown type>".to_owned(),
    };
    let (target, current) = (&spec[kind]["target"], &status[kind]["current"]);
    let shown = |value: &Value| or(value.text(), "<unknown>").text().to_owned();
    let average = target["averageValue"].text();
    match kind {
        "pods" => format!("{}/{average}", shown(&current["averageValue"])),
        "external" | "object" if !average.is_empty() => {
            format!("{}/{average} (avg)", shown(&current["averageValue"]))
        }
        "external" | "object" => format!("{}/{}", shown(&current["value"]), target["value"].text()),
        _ => {
            let resource = spec[kind]["name"].text();
            if !average.is_empty() {
                return format!("{resource}: {}/{average}", shown(&current["averageValue"]));
            }
            let percent = |value: &Value, none: &str| {
                value.as_i64().map_or_else(|| none.to_owned(), |percent| format!("{percent}%"))
            };
            let current = percent(&current["averageUtilization"], "<unknown>");
            format!("{resource}: {current}/{}", percent(&target["averageUtilization"], "<auto>"))
        }
    }
}
