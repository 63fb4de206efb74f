//! Which plugins a profile has: `plugins` in upstream's file, by extension point.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::profile::{DEFAULT, Plugin, Profile};

use super::{At, ConfigError};

/// Disables everything.
const ALL: &str = "*";

/// What is said of each of upstream's extension points.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct PluginSets {
    multi_point: PluginSet,
    pre_enqueue: PluginSet,
    queue_sort: PluginSet,
    pre_filter: PluginSet,
    filter: PluginSet,
    post_filter: PluginSet,
    pre_score: PluginSet,
    score: PluginSet,
    reserve: PluginSet,
    permit: PluginSet,
    pre_bind: PluginSet,
    bind: PluginSet,
    post_bind: PluginSet,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct PluginSet {
    enabled: Vec<Entry>,
    disabled: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    #[serde(default)]
    weight: i64,
}

impl PluginSets {
    /// Gives the profile what is said here, beside what it has by default.
    pub(super) fn apply(&self, profile: &mut Profile, at: &At) -> Result<(), ConfigError> {
        self.check(at)?;
        let everywhere = self.multi_point.weights(DEFAULT.into_iter().collect());
        // Who is kept from preparing a rule cannot apply it.
        let filters = self.filter.weights(self.pre_filter.weights(everywhere.clone()));
        profile.filters = filters.into_keys().collect();
        profile.last_resorts = self.post_filter.weights(everywhere.clone()).into_keys().collect();
        let scores = self.score.weights(self.pre_score.weights(everywhere));
        let scoring = scores.into_iter().filter(|(plugin, _)| can_score(*plugin));
        // What names no weight counts once.
        profile.weights = scoring.map(|(plugin, weight)| (plugin, weight.max(1))).collect();
        Ok(())
    }

    fn check(&self, at: &At) -> Result<(), ConfigError> {
        for (name, set) in self.all() {
            let at = at.child(name);
            for (index, entry) in set.enabled.iter().enumerate() {
                let at = at.child(&format!("enabled[{index}]"));
                if plugin(&entry.name).is_none() {
                    return Err(at.wrong(format!("{} does not exist", entry.name)));
                }
                at.child("weight").in_range(entry.weight, 0, i64::from(i32::MAX))?;
            }
            for (index, entry) in set.disabled.iter().enumerate() {
                if entry.name != ALL && plugin(&entry.name).is_none() {
                    let at = at.child(&format!("disabled[{index}]"));
                    return Err(at.wrong(format!("{} does not exist", entry.name)));
                }
            }
        }
        // What is no choice here: pods wait in one queue, gates hold them, and the API binds them.
        let everywhere = self.multi_point.weights(DEFAULT.into_iter().collect());
        let needed = [
            ("queueSort", &self.queue_sort, Plugin::PrioritySort),
            ("preEnqueue", &self.pre_enqueue, Plugin::SchedulingGates),
            ("bind", &self.bind, Plugin::DefaultBinder),
        ];
        for (name, set, plugin) in needed {
            if !set.weights(everywhere.clone()).contains_key(&plugin) {
                return Err(at.child(name).wrong(format!("{plugin:?} cannot be disabled here")));
            }
        }
        Ok(())
    }

    fn all(&self) -> [(&'static str, &PluginSet); 13] {
        [
            ("multiPoint", &self.multi_point),
            ("preEnqueue", &self.pre_enqueue),
            ("queueSort", &self.queue_sort),
            ("preFilter", &self.pre_filter),
            ("filter", &self.filter),
            ("postFilter", &self.post_filter),
            ("preScore", &self.pre_score),
            ("score", &self.score),
            ("reserve", &self.reserve),
            ("permit", &self.permit),
            ("preBind", &self.pre_bind),
            ("bind", &self.bind),
            ("postBind", &self.post_bind),
        ]
    }
}

impl PluginSet {
    /// What is left of the known plugins, and what is added, with their weights.
    fn weights(&self, known: BTreeMap<Plugin, i64>) -> BTreeMap<Plugin, i64> {
        let is_disabled = |plugin: &Plugin| {
            let name = format!("{plugin:?}");
            self.disabled.iter().any(|entry| entry.name == ALL || entry.name == name)
        };
        let mut left: BTreeMap<_, _> =
            known.into_iter().filter(|(plugin, _)| !is_disabled(plugin)).collect();
        for entry in &self.enabled {
            if let Some(plugin) = plugin(&entry.name) {
                let default = DEFAULT.iter().find(|(known, _)| *known == plugin);
                let weight = match entry.weight {
                    0 => default.map_or(0, |(_, weight)| (*weight).min(1)),
                    weight => weight,
                };
                left.insert(plugin, weight);
            }
        }
        left
    }
}

fn plugin(name: &str) -> Option<Plugin> {
    DEFAULT.into_iter().map(|(plugin, _)| plugin).find(|plugin| format!("{plugin:?}") == name)
}

/// Those of the plugins that make one node better than another.
fn can_score(plugin: Plugin) -> bool {
    DEFAULT.iter().any(|(known, weight)| *known == plugin && *weight > 0)
}
