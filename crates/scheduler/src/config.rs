//! Upstream's configuration file, `KubeSchedulerConfiguration`, read into profiles.
//!
//! What it can say and this scheduler cannot do is refused, never passed over in silence.

use std::fmt;
use std::time::Duration;

use k8s_openapi::api::core::v1::{NodeAffinity, TopologySpreadConstraint};
use serde::Deserialize;
use serde_json::Value;

use crate::profile::{DefaultSpread, Preference, Profile, Strategy};

mod plugins;

use plugins::PluginSets;

const API_VERSION: &str = "kubescheduler.config.k8s.io/v1";
const KIND: &str = "KubeSchedulerConfiguration";
/// What upstream's scores of a use go up to; ours go up to 100.
const MOST_POINTS: i64 = 10;

/// What the file says.
#[derive(Debug, Clone, PartialEq)]
pub struct Configuration {
    /// How pods are placed, by the scheduler that they name.
    pub profiles: Vec<Profile>,
    /// How the API server is reached, if the file says it.
    pub kubeconfig: Option<String>,
    /// How long a pod waits after its first failed attempt, and how long at most.
    pub backoff: (Duration, Duration),
}

/// Why a file cannot be used: where, and what is wrong there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{at}: {problem}")]
pub struct ConfigError {
    at: String,
    problem: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    api_version: String,
    kind: String,
    #[serde(default)]
    profiles: Vec<FileProfile>,
    percentage_of_nodes_to_score: Option<i64>,
    pod_initial_backoff_seconds: Option<i64>,
    pod_max_backoff_seconds: Option<i64>,
    #[serde(default)]
    client_connection: ClientConnection,
    #[serde(default)]
    leader_election: LeaderElection,
    #[serde(default)]
    extenders: Vec<Value>,
    /// Upstream's number of goroutines; one task decides here, and needs no others.
    #[serde(rename = "parallelism")]
    _parallelism: Option<i64>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ClientConnection {
    #[serde(default)]
    kubeconfig: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct LeaderElection {
    leader_elect: Option<bool>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct FileProfile {
    #[serde(default)]
    scheduler_name: String,
    percentage_of_nodes_to_score: Option<i64>,
    #[serde(default)]
    plugins: PluginSets,
    #[serde(default)]
    plugin_config: Vec<PluginConfig>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PluginConfig {
    name: String,
    #[serde(default)]
    args: serde_json::Map<String, Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct NodeAffinityArgs {
    added_affinity: Option<NodeAffinity>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct SpreadArgs {
    #[serde(default)]
    default_constraints: Vec<TopologySpreadConstraint>,
    defaulting_type: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct FitArgs {
    #[serde(default)]
    ignored_resources: Vec<String>,
    #[serde(default)]
    ignored_resource_groups: Vec<String>,
    scoring_strategy: Option<ScoringStrategy>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ScoringStrategy {
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    resources: Vec<ResourceSpec>,
    requested_to_capacity_ratio: Option<Ratio>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ResourceSpec {
    name: String,
    #[serde(default)]
    weight: i64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Ratio {
    #[serde(default)]
    shape: Vec<Point>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Point {
    utilization: i64,
    score: i64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BalancedArgs {
    #[serde(default)]
    resources: Vec<ResourceSpec>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct AffinityArgs {
    hard_pod_affinity_weight: Option<i64>,
    #[serde(default)]
    ignore_preferred_terms_of_existing_pods: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct PreemptionArgs {
    min_candidate_nodes_percentage: Option<i64>,
    min_candidate_nodes_absolute: Option<i64>,
}

/// A place in the file.
#[derive(Clone)]
struct At(String);

impl Configuration {
    /// Reads a file, which is YAML or JSON.
    ///
    /// # Errors
    /// When it is not such a file, or asks for what cannot be done.
    pub fn parse(text: &str) -> Result<Configuration, ConfigError> {
        let root = At("the file".to_owned());
        let value: Value =
            serde_yaml::from_str(text).map_err(|error| root.wrong(error.to_string()))?;
        let file: File =
            serde_json::from_value(value).map_err(|error| root.wrong(error.to_string()))?;
        if (file.api_version.as_str(), file.kind.as_str()) != (API_VERSION, KIND) {
            return Err(root.wrong(format!("must be a {KIND} of {API_VERSION}")));
        }
        if !file.extenders.is_empty() {
            return Err(At("extenders".to_owned()).wrong("there are none here"));
        }
        if file.leader_election.leader_elect == Some(false) {
            let at = At("leaderElection.leaderElect".to_owned());
            return Err(at.wrong("must be true: of several schedulers one leads"));
        }
        let percentage = At("percentageOfNodesToScore".to_owned()).in_range(
            file.percentage_of_nodes_to_score.unwrap_or(0),
            0,
            100,
        )?;
        let kubeconfig = file.client_connection.kubeconfig;
        Ok(Configuration {
            backoff: backoff(file.pod_initial_backoff_seconds, file.pod_max_backoff_seconds)?,
            profiles: profiles(file.profiles, percentage)?,
            kubeconfig: Some(kubeconfig).filter(|path| !path.is_empty()),
        })
    }
}

fn backoff(first: Option<i64>, longest: Option<i64>) -> Result<(Duration, Duration), ConfigError> {
    let first = At("podInitialBackoffSeconds".to_owned()).in_range(first.unwrap_or(1), 1, 3600)?;
    let at = At("podMaxBackoffSeconds".to_owned());
    let longest = longest.unwrap_or(10);
    if longest < first {
        return Err(at.wrong("must be greater than or equal to PodInitialBackoffSeconds"));
    }
    let seconds = |seconds: i64| Duration::from_secs(seconds.unsigned_abs());
    Ok((seconds(first), seconds(at.in_range(longest, 1, 3600)?)))
}

fn profiles(files: Vec<FileProfile>, percentage: i64) -> Result<Vec<Profile>, ConfigError> {
    if files.is_empty() {
        let default = Profile { percentage: amount(percentage), ..Profile::default() };
        return Ok(vec![default]);
    }
    let is_alone = files.len() == 1;
    let mut profiles: Vec<Profile> = Vec::new();
    for (index, mut file) in files.into_iter().enumerate() {
        let at = At(format!("profiles[{index}]"));
        if is_alone && file.scheduler_name.is_empty() {
            "default-scheduler".clone_into(&mut file.scheduler_name);
        }
        if file.scheduler_name.is_empty() {
            return Err(at.child("schedulerName").wrong("Required value"));
        }
        if profiles.iter().any(|known| known.scheduler_name == file.scheduler_name) {
            let problem = format!("Duplicate value: {:?}", file.scheduler_name);
            return Err(at.child("schedulerName").wrong(problem));
        }
        profiles.push(profile(file, percentage, &at)?);
    }
    Ok(profiles)
}

fn profile(file: FileProfile, percentage: i64, at: &At) -> Result<Profile, ConfigError> {
    let mut profile = Profile::new(file.scheduler_name);
    let percentage = file.percentage_of_nodes_to_score.unwrap_or(percentage);
    profile.percentage = amount(at.child("percentageOfNodesToScore").in_range(percentage, 0, 100)?);
    file.plugins.apply(&mut profile, &at.child("plugins"))?;
    let mut seen = Vec::new();
    for (index, config) in file.plugin_config.into_iter().enumerate() {
        let at = at.child(&format!("pluginConfig[{index}]"));
        if seen.contains(&config.name) {
            return Err(at.wrong(format!("Duplicate value: {:?}", config.name)));
        }
        seen.push(config.name.clone());
        configure(&mut profile, config, &at)?;
    }
    Ok(profile)
}

fn configure(profile: &mut Profile, config: PluginConfig, at: &At) -> Result<(), ConfigError> {
    let PluginConfig { name, mut args } = config;
    let at = at.child("args");
    // Who writes the type must write the right one.
    let _ = args.remove("apiVersion");
    if args.remove("kind").is_some_and(|kind| kind.as_str() != Some(&format!("{name}Args"))) {
        return Err(at.wrong("has to match plugin args"));
    }
    let args = Value::Object(args);
    match name.as_str() {
        "NodeAffinity" => {
            let affinity = at.read::<NodeAffinityArgs>(args)?.added_affinity.unwrap_or_default();
            let required = affinity.required_during_scheduling_ignored_during_execution;
            profile.added_required = required.map(|required| required.node_selector_terms);
            let preferred = affinity.preferred_during_scheduling_ignored_during_execution;
            profile.added_preferred = preferred.unwrap_or_default();
        }
        "PodTopologySpread" => profile.spread = spread(at.read(args)?, &at)?,
        "NodeResourcesFit" => fit(profile, at.read(args)?, &at)?,
        "NodeResourcesBalancedAllocation" => {
            let resources = at.read::<BalancedArgs>(args)?.resources;
            if !resources.is_empty() {
                profile.balanced = resources.into_iter().map(|resource| resource.name).collect();
            }
        }
        "InterPodAffinity" => {
            let args: AffinityArgs = at.read(args)?;
            let weight = args.hard_pod_affinity_weight.unwrap_or(1);
            profile.hard_affinity = at.child("hardPodAffinityWeight").in_range(weight, 0, 100)?;
            profile.ignores_wishes_of_others = args.ignore_preferred_terms_of_existing_pods;
        }
        "DefaultPreemption" => {
            let args: PreemptionArgs = at.read(args)?;
            let percent = args.min_candidate_nodes_percentage.unwrap_or(10);
            let percent = at.child("minCandidateNodesPercentage").in_range(percent, 0, 100)?;
            let least = args.min_candidate_nodes_absolute.unwrap_or(100);
            let least = at.child("minCandidateNodesAbsolute").in_range(least, 0, i64::MAX)?;
            if (least, percent) == (0, 0) {
                let at = at.child("minCandidateNodesPercentage");
                return Err(
                    at.wrong("cannot be zero at the same time as minCandidateNodesAbsolute")
                );
            }
            profile.candidates = (amount(least), amount(percent));
        }
        _ => return Err(at.wrong(format!("plugin {name:?} takes no arguments here"))),
    }
    Ok(())
}

fn spread(args: SpreadArgs, at: &At) -> Result<DefaultSpread, ConfigError> {
    match args.defaulting_type.as_deref().unwrap_or("System") {
        "System" if args.default_constraints.is_empty() => return Ok(DefaultSpread::System),
        "System" => {
            let at = at.child("defaultingType");
            return Err(
                at.wrong("Invalid value: \"System\": when .defaultConstraints are not empty")
            );
        }
        "List" => (),
        other => {
            let problem =
                format!("Unsupported value: {other:?}: supported values: \"List\", \"System\"");
            return Err(at.child("defaultingType").wrong(problem));
        }
    }
    for (index, constraint) in args.default_constraints.iter().enumerate() {
        let at = at.child(&format!("defaultConstraints[{index}]"));
        at.child("maxSkew").in_range(i64::from(constraint.max_skew), 1, i64::from(i32::MAX))?;
        if constraint.topology_key.is_empty() {
            return Err(at.child("topologyKey").wrong("Required value: can not be empty"));
        }
        if !matches!(constraint.when_unsatisfiable.as_str(), "DoNotSchedule" | "ScheduleAnyway") {
            let problem = "supported values: \"DoNotSchedule\", \"ScheduleAnyway\"";
            return Err(at.child("whenUnsatisfiable").wrong(problem));
        }
        if constraint.label_selector.is_some() {
            let problem =
                "Forbidden: constraint must not define a selector, as they deduced for each pod";
            return Err(at.child("labelSelector").wrong(problem));
        }
    }
    Ok(DefaultSpread::List(args.default_constraints))
}

fn fit(profile: &mut Profile, args: FitArgs, at: &At) -> Result<(), ConfigError> {
    profile.ignored_resources = args.ignored_resources;
    profile.ignored_groups = args.ignored_resource_groups;
    let Some(strategy) = args.scoring_strategy else { return Ok(()) };
    let at = at.child("scoringStrategy");
    let preference = match (strategy.kind.as_str(), strategy.requested_to_capacity_ratio) {
        ("LeastAllocated", None) => Preference::LeastAllocated,
        ("MostAllocated", None) => Preference::MostAllocated,
        ("RequestedToCapacityRatio", Some(ratio)) => {
            Preference::ByUse(points(&ratio.shape, &at.child("requestedToCapacityRatio.shape"))?)
        }
        ("RequestedToCapacityRatio", None) => {
            let problem = "must be specified when type is RequestedToCapacityRatio";
            return Err(at.child("requestedToCapacityRatio").wrong(problem));
        }
        ("LeastAllocated" | "MostAllocated", Some(_)) => {
            let problem = "must be nil when type is not RequestedToCapacityRatio";
            return Err(at.child("requestedToCapacityRatio").wrong(problem));
        }
        (other, _) => {
            let problem = format!(
                "Unsupported value: {other:?}: supported values: \"LeastAllocated\", \"MostAllocated\", \"RequestedToCapacityRatio\""
            );
            return Err(at.child("type").wrong(problem));
        }
    };
    let mut resources = Vec::new();
    for (index, resource) in strategy.resources.into_iter().enumerate() {
        let at = at.child(&format!("resources[{index}].weight"));
        // Nothing means one, as upstream defaults it.
        let weight = if resource.weight == 0 { 1 } else { resource.weight };
        resources.push((resource.name, at.in_range(weight, 1, 100)?));
    }
    if resources.is_empty() {
        resources.clone_from(&profile.strategy.resources);
    }
    profile.strategy = Strategy { preference, resources };
    Ok(())
}

fn points(shape: &[Point], at: &At) -> Result<Vec<(i64, i64)>, ConfigError> {
    if shape.is_empty() {
        return Err(at.wrong("Required value: at least one point must be specified"));
    }
    let mut points = Vec::new();
    for (index, point) in shape.iter().enumerate() {
        let at = At(format!("{}[{index}]", at.0));
        let used = at.child("utilization").in_range(point.utilization, 0, 100)?;
        let score = at.child("score").in_range(point.score, 0, MOST_POINTS)?;
        if points.last().is_some_and(|(before, _)| *before >= used) {
            let problem = "values must be sorted in increasing order";
            return Err(at.child("utilization").wrong(problem));
        }
        points.push((used, score * 100 / MOST_POINTS));
    }
    Ok(points)
}

/// What was checked to be no less than zero.
fn amount(number: i64) -> usize {
    usize::try_from(number).unwrap_or(0)
}

impl At {
    fn child(&self, name: &str) -> At {
        At(format!("{}.{name}", self.0))
    }

    fn wrong(&self, problem: impl fmt::Display) -> ConfigError {
        ConfigError { at: self.0.clone(), problem: problem.to_string() }
    }

    fn read<T: for<'de> Deserialize<'de>>(&self, args: Value) -> Result<T, ConfigError> {
        serde_json::from_value(args).map_err(|error| self.wrong(error))
    }

    fn in_range(&self, number: i64, least: i64, most: i64) -> Result<i64, ConfigError> {
        if (least..=most).contains(&number) {
            return Ok(number);
        }
        let range = match most {
            i64::MAX => format!("[{least}, inf)"),
            most => format!("[{least}, {most}]"),
        };
        Err(self.wrong(format!("Invalid value: {number}: not in valid range {range}")))
    }
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
