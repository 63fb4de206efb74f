use super::*;

use serde_json::json;

use crate::profile::Plugin;

/// The profiles of a file that says this besides its type.
fn parse(more: Value) -> Result<Configuration, ConfigError> {
    let mut file = json!({"apiVersion": API_VERSION, "kind": KIND});
    json_patch::merge(&mut file, &more);
    Configuration::parse(&file.to_string())
}

fn profile_of(more: Value) -> Profile {
    let mut profiles = parse(json!({"profiles": [more]})).unwrap().profiles;
    assert_eq!(profiles.len(), 1);
    profiles.remove(0)
}

#[test]
fn a_file_that_says_nothing_means_upstreams_defaults() {
    let found = parse(json!({})).unwrap();
    assert_eq!(found.profiles, [Profile::default()]);
    assert_eq!(found.backoff, (Duration::from_secs(1), Duration::from_secs(10)));
    assert_eq!(found.kubeconfig, None);
    assert_eq!(profile_of(json!({})), Profile::default());
    // What kubeadm writes, more or less, in YAML.
    let text = "apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\n\
        clientConnection:\n  kubeconfig: /etc/kubernetes/scheduler.conf\nleaderElection:\n  leaderElect: true\n\
        profiles:\n- schedulerName: default-scheduler\n- schedulerName: other\n";
    let found = Configuration::parse(text).unwrap();
    assert_eq!(found.kubeconfig.as_deref(), Some("/etc/kubernetes/scheduler.conf"));
    assert_eq!(found.profiles, [Profile::default(), Profile::new("other")]);
}

#[test]
fn plugins_are_enabled_disabled_and_weighed() {
    let plugins = |plugins: Value| profile_of(json!({"plugins": plugins}));
    let without = plugins(json!({"multiPoint": {"disabled": [{"name": "TaintToleration"}]}}));
    assert!(!without.filters.has(Plugin::TaintToleration));
    assert_eq!(without.weight(Plugin::TaintToleration), 0);
    let unscored = plugins(json!({"score": {"disabled": [{"name": "TaintToleration"}]}}));
    assert!(unscored.filters.has(Plugin::TaintToleration));
    assert_eq!(unscored.weight(Plugin::TaintToleration), 0);
    assert_eq!(unscored.weight(Plugin::NodeAffinity), 2);
    let only = plugins(json!({"score": {"disabled": [{"name": "*"}],
        "enabled": [{"name": "NodeResourcesFit", "weight": 5}, {"name": "NodeAffinity"}]}}));
    assert_eq!(only.weights, [(Plugin::NodeAffinity, 1), (Plugin::NodeResourcesFit, 5)].into());
    assert_eq!(only.filters, Profile::default().filters);
    let heavier =
        plugins(json!({"multiPoint": {"enabled": [{"name": "NodeAffinity", "weight": 9}]}}));
    assert_eq!(heavier.weight(Plugin::NodeAffinity), 9);
    let peaceful = plugins(json!({"postFilter": {"disabled": [{"name": "DefaultPreemption"}]}}));
    assert!(!peaceful.last_resorts.has(Plugin::DefaultPreemption));
}

#[test]
fn plugins_take_their_arguments() {
    let with = |name: &str, args: Value| {
        profile_of(json!({"pluginConfig": [{"name": name, "args": args}]}))
    };
    let packing = with(
        "NodeResourcesFit",
        json!({"scoringStrategy": {"type": "MostAllocated",
        "resources": [{"name": "cpu", "weight": 3}, {"name": "example.com/gpu"}]}}),
    );
    assert_eq!(packing.strategy.preference, Preference::MostAllocated);
    let weights =
        [("cpu", 3), ("example.com/gpu", 1)].map(|(name, weight)| (name.to_owned(), weight));
    assert_eq!(packing.strategy.resources, weights);
    let shaped = with(
        "NodeResourcesFit",
        json!({"scoringStrategy": {"type": "RequestedToCapacityRatio",
        "requestedToCapacityRatio": {"shape": [{"utilization": 0, "score": 0}, {"utilization": 100, "score": 10}]}}}),
    );
    assert_eq!(shaped.strategy.preference, Preference::ByUse(vec![(0, 0), (100, 100)]));
    let added = json!({"apiVersion": API_VERSION, "kind": "NodeAffinityArgs", "addedAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
            {"matchExpressions": [{"key": "pool", "operator": "In", "values": ["a"]}]}]}}});
    assert_eq!(with("NodeAffinity", added).added_required.map(|terms| terms.len()), Some(1));
    let constraint =
        json!({"topologyKey": "zone", "maxSkew": 1, "whenUnsatisfiable": "DoNotSchedule"});
    let spread = with(
        "PodTopologySpread",
        json!({"defaultingType": "List", "defaultConstraints": [constraint]}),
    );
    assert!(matches!(spread.spread, DefaultSpread::List(list) if list.len() == 1));
    let drawn = with("InterPodAffinity", json!({"hardPodAffinityWeight": 7}));
    assert_eq!(drawn.hard_affinity, 7);
    let few = with(
        "DefaultPreemption",
        json!({"minCandidateNodesAbsolute": 3, "minCandidateNodesPercentage": 0}),
    );
    assert_eq!(few.candidates, (3, 0));
}

#[test]
fn what_cannot_be_done_is_refused() {
    let check = |file: Value, expected: &str| {
        assert_eq!(parse(file).unwrap_err().to_string(), expected);
    };
    let one = |profile: Value| json!({"profiles": [profile]});
    let args = |name: &str, args: Value| json!({"profiles": [{"pluginConfig": [{"name": name, "args": args}]}]});
    assert_eq!(
        Configuration::parse("kind: Pod\napiVersion: v1").unwrap_err().to_string(),
        "the file: must be a KubeSchedulerConfiguration of kubescheduler.config.k8s.io/v1"
    );
    assert!(Configuration::parse("{").is_err());
    assert!(
        parse(json!({"percentOfNodes": 1}))
            .unwrap_err()
            .to_string()
            .contains("unknown field `percentOfNodes`")
    );
    check(json!({"extenders": [{"urlPrefix": "http://x"}]}), "extenders: there are none here");
    check(
        json!({"percentageOfNodesToScore": 101}),
        "percentageOfNodesToScore: Invalid value: 101: not in valid range [0, 100]",
    );
    check(
        json!({"podInitialBackoffSeconds": 5, "podMaxBackoffSeconds": 2}),
        "podMaxBackoffSeconds: must be greater than or equal to PodInitialBackoffSeconds",
    );
    check(
        json!({"profiles": [{"schedulerName": "a"}, {"schedulerName": "a"}]}),
        "profiles[1].schedulerName: Duplicate value: \"a\"",
    );
    check(
        json!({"profiles": [{"schedulerName": "a"}, {}]}),
        "profiles[1].schedulerName: Required value",
    );
    check(
        one(json!({"plugins": {"filter": {"disabled": [{"name": "Magic"}]}}})),
        "profiles[0].plugins.filter.disabled[0]: Magic does not exist",
    );
    check(
        one(json!({"plugins": {"bind": {"disabled": [{"name": "*"}]}}})),
        "profiles[0].plugins.bind: DefaultBinder cannot be disabled here",
    );
    check(
        args("NodeResourcesFit", json!({"scoringStrategy": {"type": "Best"}})),
        "profiles[0].pluginConfig[0].args.scoringStrategy.type: Unsupported value: \"Best\": supported values: \
         \"LeastAllocated\", \"MostAllocated\", \"RequestedToCapacityRatio\"",
    );
    check(
        args("InterPodAffinity", json!({"hardPodAffinityWeight": 101})),
        "profiles[0].pluginConfig[0].args.hardPodAffinityWeight: Invalid value: 101: not in valid range [0, 100]",
    );
    check(
        args("PodTopologySpread", json!({"kind": "NodeAffinityArgs"})),
        "profiles[0].pluginConfig[0].args: has to match plugin args",
    );
    check(
        args(
            "PodTopologySpread",
            json!({"defaultConstraints": [{"topologyKey": "zone", "maxSkew": 1,
            "whenUnsatisfiable": "ScheduleAnyway"}]}),
        ),
        "profiles[0].pluginConfig[0].args.defaultingType: Invalid value: \"System\": when .defaultConstraints are not empty",
    );
}
