//! Stories: what Coracle promises, checked as a user would see it.

mod access;
mod admission_policies;
mod bad_guests;
mod bad_input;
mod certificates;
mod custom_resources;
mod daemon_sets;
mod durability;
mod garbage;
mod helm;
mod job_policies;
mod jobs;
mod kills;
mod kubectl;
mod metrics;
mod pods;
mod proxy;
mod python;
mod scheduling;
mod security;
mod server_side_apply;
mod services;
mod up;
mod volumes;
mod webhooks;
mod workloads;
