//! `CronJob`.

use serde_json::json;

use crate::rules::json::{default, default_zero, object};
use crate::rules::{Rules, generic, job, pod};

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
    ..Rules::GENERIC
};
