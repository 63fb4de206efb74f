//! One rule: what it allows, and which other rules it includes.

use k8s_openapi::api::rbac::v1::PolicyRule;

use super::Target;

/// A rule, ready to be asked.
#[derive(Debug, Clone)]
pub(super) struct Rule {
    verbs: Words,
    groups: Words,
    resources: Words,
    names: Words,
    paths: Words,
}

/// A few words, of which `*` is any.
#[derive(Debug, Clone)]
struct Words {
    any: bool,
    words: Box<[Box<str>]>,
}

impl Words {
    fn new(words: &[String]) -> Self {
        let any = words.iter().any(|word| word == "*");
        Self { any, words: words.iter().map(|word| word.as_str().into()).collect() }
    }

    fn of(words: Option<&Vec<String>>) -> Self {
        Self::new(words.map_or(&[], Vec::as_slice))
    }

    fn has(&self, wanted: &str) -> bool {
        self.any || self.words.iter().any(|word| &**word == wanted)
    }
}

impl Rule {
    pub(super) fn new(rule: &PolicyRule) -> Self {
        Self {
            verbs: Words::new(&rule.verbs),
            groups: Words::of(rule.api_groups.as_ref()),
            resources: Words::of(rule.resources.as_ref()),
            names: Words::of(rule.resource_names.as_ref()),
            paths: Words::of(rule.non_resource_urls.as_ref()),
        }
    }

    /// Whether the rule allows this.
    pub(super) fn allows(&self, verb: &str, target: &Target<'_>) -> bool {
        if !self.verbs.has(verb) {
            return false;
        }
        match target {
            Target::Path(path) => {
                self.paths.any || self.paths.words.iter().any(|pattern| path_matches(pattern, path))
            }
            Target::Resource { group, resource, subresource, name, .. } => {
                self.groups.has(group)
                    && (self.resources.any
                        || self.resources.words.iter().any(|word| resource_matches(word, resource, subresource)))
                    // Here a star is a name like any other, and no name at all is none of the listed ones.
                    && (self.names.words.is_empty() || self.names.words.iter().any(|word| &**word == *name))
            }
        }
    }
}

/// `pods`, `pods/log` and `*/log`; upstream knows no `pods/*`.
fn resource_matches(word: &str, resource: &str, subresource: &str) -> bool {
    if subresource.is_empty() {
        return word == resource;
    }
    match word.split_once('/') {
        Some((main, sub)) => sub == subresource && (main == "*" || main == resource),
        None => false,
    }
}

/// `/healthz`, or `/healthz/*` for everything that starts so.
fn path_matches(pattern: &str, path: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => path.starts_with(prefix.trim_end_matches('*')),
        None => pattern == path,
    }
}

/// What of `wanted` is not in `owned`: rules with one verb and one resource or path each.
pub(super) fn missing(owned: &[PolicyRule], wanted: &[PolicyRule]) -> Vec<PolicyRule> {
    wanted
        .iter()
        .flat_map(break_down)
        .filter(|simple| !owned.iter().any(|owner| covers(owner, simple)))
        .collect()
}

/// The rule as rules that grant one thing each.
fn break_down(rule: &PolicyRule) -> Vec<PolicyRule> {
    let list = |words: &Option<Vec<String>>| words.clone().unwrap_or_default();
    let mut simple = Vec::new();
    for group in &list(&rule.api_groups) {
        for resource in &list(&rule.resources) {
            for verb in &rule.verbs {
                let one = |name: Option<&String>| PolicyRule {
                    api_groups: Some(vec![group.clone()]),
                    resources: Some(vec![resource.clone()]),
                    verbs: vec![verb.clone()],
                    resource_names: name.map(|name| vec![name.clone()]),
                    non_resource_urls: None,
                };
                match rule.resource_names.as_deref() {
                    None | Some([]) => simple.push(one(None)),
                    Some(names) => simple.extend(names.iter().map(|name| one(Some(name)))),
                }
            }
        }
    }
    for path in &list(&rule.non_resource_urls) {
        simple.extend(rule.verbs.iter().map(|verb| PolicyRule {
            non_resource_urls: Some(vec![path.clone()]),
            verbs: vec![verb.clone()],
            ..PolicyRule::default()
        }));
    }
    simple
}

/// Whether `owner` allows all that the simple rule does.
fn covers(owner: &PolicyRule, simple: &PolicyRule) -> bool {
    let words = |words: &Option<Vec<String>>| words.clone().unwrap_or_default();
    let all = |owned: &[String], wanted: &[String]| wanted.iter().all(|word| owned.contains(word));
    let star = |owned: &[String]| owned.iter().any(|word| word == "*");
    if !star(&owner.verbs) && !all(&owner.verbs, &simple.verbs) {
        return false;
    }
    let (groups, resources, names) =
        (words(&owner.api_groups), words(&owner.resources), words(&owner.resource_names));
    let wanted_names = words(&simple.resource_names);
    let wanted_resources = words(&simple.resources);
    let resources_covered = star(&resources)
        || wanted_resources.iter().all(|wanted| {
            resources.contains(wanted)
                || wanted
                    .split_once('/')
                    .is_some_and(|(_, sub)| resources.contains(&format!("*/{sub}")))
        });
    let names_covered = if wanted_names.is_empty() {
        names.is_empty()
    } else {
        names.is_empty() || all(&names, &wanted_names)
    };
    let paths = words(&owner.non_resource_urls);
    let paths_covered = star(&paths)
        || words(&simple.non_resource_urls)
            .iter()
            .all(|wanted| paths.iter().any(|own| own == wanted || path_matches(own, wanted)));
    let is_path = simple.non_resource_urls.is_some();
    if is_path {
        return paths_covered;
    }
    (star(&groups) || all(&groups, &words(&simple.api_groups)))
        && resources_covered
        && names_covered
}

/// Joins rules that differ only in their verb, so that a message stays short.
pub(super) fn compact(rules: Vec<PolicyRule>) -> Vec<PolicyRule> {
    let mut compacted: Vec<PolicyRule> = Vec::new();
    for rule in rules {
        let same = compacted.iter_mut().find(|other| {
            other.api_groups == rule.api_groups
                && other.resources == rule.resources
                && other.resource_names == rule.resource_names
                && other.non_resource_urls == rule.non_resource_urls
        });
        match same {
            Some(other) => {
                for verb in rule.verbs {
                    if !other.verbs.contains(&verb) {
                        other.verbs.push(verb);
                    }
                }
            }
            None => compacted.push(rule),
        }
    }
    compacted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(words: &str) -> Option<Vec<String>> {
        (!words.is_empty()).then(|| words.split(' ').map(|word| word.replace("core", "")).collect())
    }

    fn rule(verbs: &str, groups: &str, resources: &str, names: &str) -> PolicyRule {
        PolicyRule {
            verbs: list(verbs).unwrap(),
            api_groups: list(groups),
            resources: list(resources),
            resource_names: list(names),
            non_resource_urls: None,
        }
    }

    fn paths(verbs: &str, paths: &str) -> PolicyRule {
        PolicyRule {
            verbs: list(verbs).unwrap(),
            non_resource_urls: list(paths),
            ..PolicyRule::default()
        }
    }

    /// `question` is `verb group resource[/subresource] [name]`, or `verb /path`.
    fn check(rule: &PolicyRule, question: &str, expected: bool) {
        let words: Vec<&str> = question.split(' ').collect();
        let target = if words[1].starts_with('/') {
            Target::Path(words[1])
        } else {
            let (resource, subresource) = words[2].split_once('/').unwrap_or((words[2], ""));
            Target::Resource {
                group: if words[1] == "core" { "" } else { words[1] },
                resource,
                subresource,
                namespace: "default",
                name: words.get(3).copied().unwrap_or_default(),
            }
        };
        assert_eq!(Rule::new(rule).allows(words[0], &target), expected, "{question} by {rule:?}");
    }

    #[test]
    fn a_rule_allows_what_it_names_and_nothing_else() {
        let pods = rule("get list", "core", "pods pods/log", "");
        for yes in ["get core pods", "list core pods x", "get core pods/log x"] {
            check(&pods, yes, true);
        }
        for no in [
            "create core pods",
            "get apps pods",
            "get core pod",
            "get core pods/exec",
            "get core services",
            "get /pods",
        ] {
            check(&pods, no, false);
        }
    }

    #[test]
    fn stars_mean_any() {
        check(&rule("*", "*", "*", ""), "frobnicate apps deployments/scale x", true);
        check(&rule("*", "*", "*", ""), "get /healthz", false);
        check(&rule("get", "*", "*/scale", ""), "get apps deployments/scale x", true);
        check(&rule("get", "*", "*/scale", ""), "get apps deployments x", false);
        check(&rule("get", "*", "*/scale", ""), "get apps deployments/status x", false);
        check(&rule("get", "core", "pods/*", ""), "get core pods/log x", false);
        check(&rule("get", "core", "*", ""), "get apps deployments", false);
    }

    #[test]
    fn names_limit_a_rule_to_requests_that_bear_one() {
        let own = rule("get list", "core", "secrets", "mine");
        check(&own, "get core secrets mine", true);
        check(&own, "get core secrets yours", false);
        check(&own, "list core secrets", false);
        check(&rule("get", "core", "secrets", "*"), "get core secrets mine", false);
    }

    #[test]
    fn paths_match_whole_or_by_their_start() {
        check(&paths("get", "/healthz /healthz/*"), "get /healthz", true);
        check(&paths("get", "/healthz /healthz/*"), "get /healthz/etcd", true);
        check(&paths("get", "/healthz"), "get /healthz/etcd", false);
        check(&paths("get", "/healthz/*"), "get /healthzz", false);
        check(&paths("*", "*"), "post /anything", true);
        check(&paths("get", "/healthz"), "post /healthz", false);
    }

    #[test]
    fn missing_rules_are_those_that_no_owned_rule_covers() {
        let owned = [
            rule("get list", "core", "pods", ""),
            rule("get", "core", "secrets", "mine"),
            rule("*", "apps", "*/scale", ""),
        ];
        let none: [PolicyRule; 0] = [];
        assert_eq!(missing(&owned, &[rule("get", "core", "pods", "")]), none);
        assert_eq!(missing(&owned, &[rule("get", "core", "pods", "one")]), none);
        assert_eq!(missing(&owned, &[rule("get", "core", "secrets", "mine")]), none);
        assert_eq!(missing(&owned, &[rule("update", "apps", "deployments/scale", "")]), none);
        assert_eq!(
            missing(&owned, &[rule("get", "core", "secrets", "")]),
            [rule("get", "core", "secrets", "")]
        );
        assert_eq!(
            missing(&owned, &[rule("get", "core", "secrets", "mine yours")]),
            [rule("get", "core", "secrets", "yours")]
        );
        assert_eq!(
            missing(&owned, &[rule("get delete", "core", "pods", "")]),
            [rule("delete", "core", "pods", "")]
        );
        assert_eq!(
            missing(&owned, &[rule("*", "core", "pods", "")]),
            [rule("*", "core", "pods", "")]
        );
        assert_eq!(
            missing(&[rule("*", "*", "*", "")], &[paths("get", "/metrics")]),
            [paths("get", "/metrics")]
        );
        assert_eq!(missing(&[paths("get", "/a/*")], &[paths("get", "/a/b /a/*")]), none);
        assert_eq!(
            missing(&[paths("get", "/a/b")], &[rule("get", "core", "pods", "")]),
            [rule("get", "core", "pods", "")]
        );
    }
}
