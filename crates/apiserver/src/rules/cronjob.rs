//! `CronJob`.

use coracle_api::cron::Schedule;
use coracle_api::status::{FieldErrors, Path};
use serde_json::{Value, json};

use crate::rules::checks::{not_negative, required_one_of};
use crate::rules::json::{Read, default, default_zero, object};
use crate::rules::{Rules, generic, job, pod};

/// A Job's name adds eleven characters to the CronJob's, and must fit a label.
const NAME_MAX: usize = 52;

pub static RULES: Rules = Rules {
    default: |cron_job| {
        let spec = object(cron_job, "spec");
        default_zero(spec, "concurrencyPolicy", "Allow");
        default(spec, "suspend", false);
        default(spec, "successfulJobsHistoryLimit", 3);
        default(spec, "failedJobsHistoryLimit", 1);
        let template = object(spec, "jobTemplate");
        object(template, "metadata");
        job::default_template(object(template, "spec"));
    },
    prepare_create: |new| {
        generic::start_status(new, json!({}));
        pod::prepare_template(&mut new["spec"]["jobTemplate"]["spec"]);
    },
    prepare_update: |new, old| {
        generic::keep_status(new, old);
        pod::prepare_template(&mut new["spec"]["jobTemplate"]["spec"]);
    },
    validate,
    ..Rules::GENERIC
};

fn validate(cron_job: &Value, errors: &mut FieldErrors) {
    let (spec, path) = (&cron_job["spec"], Path::new("spec"));
    let name = cron_job["metadata"]["name"].text();
    if name.len() > NAME_MAX && cron_job["metadata"]["resourceVersion"].text().is_empty() {
        errors.invalid(
            "metadata.name",
            name,
            format!("must be no more than {NAME_MAX} characters"),
        );
    }
    let text = spec["schedule"].text();
    if text.is_empty() {
        errors.required(path.child("schedule"), "");
    } else if text.contains("TZ") {
        let detail = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead";
        errors.invalid(path.child("schedule"), text, detail);
    } else if let Err(why) = Schedule::parse(text) {
        errors.invalid(path.child("schedule"), text, why);
    }
    not_negative(&spec["startingDeadlineSeconds"], path.child("startingDeadlineSeconds"), errors);
    time_zone(&spec["timeZone"], &path.child("timeZone"), errors);
    required_one_of(
        &spec["concurrencyPolicy"],
        &["Allow", "Forbid", "Replace"],
        path.child("concurrencyPolicy"),
        errors,
    );
    for field in ["successfulJobsHistoryLimit", "failedJobsHistoryLimit"] {
        not_negative(&spec[field], path.child(field), errors);
    }
    let at = path.child("jobTemplate").child("spec");
    let template = &spec["jobTemplate"]["spec"];
    if template["selector"].is_set() {
        let detail = "`selector` will be auto-generated";
        errors.invalid(at.child("selector"), template["selector"].clone(), detail);
    }
    if template["manualSelector"].flag() {
        errors.not_supported(at.child("manualSelector"), true, &["nil", "false"]);
    }
    job::validate_spec(template, &at, errors);
}

fn time_zone(zone: &Value, path: &Path, errors: &mut FieldErrors) {
    if !zone.is_set() {
        return;
    }
    let name = zone.text();
    if name.is_empty() {
        errors.invalid(path, name, "timeZone must be nil or non-empty string");
    } else if name.eq_ignore_ascii_case("local") {
        let detail =
            "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones";
        errors.invalid(path, name, detail);
    } else if jiff::tz::TimeZone::get(name).is_err() {
        errors.invalid(path, name, format!("unknown time zone {name}"));
    }
}
