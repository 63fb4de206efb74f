//! How many pods the metrics ask for.
//!
//! Upstream: `pkg/controller/podautoscaler/replica_calculator.go`. Values are in thousandths, as upstream's are.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

/// For so long after its start a pod's CPU may be busy with starting.
const CPU_INITIALIZATION: SignedDuration = SignedDuration::from_mins(5);
/// A pod that became unready within this time of its start has never been ready.
const INITIAL_READINESS: SignedDuration = SignedDuration::from_secs(30);
/// By how much metrics may miss their target before anything is done.
pub(super) const TOLERANCE: f64 = 0.1;

/// What one pod used.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Sample {
    pub milli_value: i64,
    pub at: Timestamp,
    pub window: SignedDuration,
}

/// What is measured, by pod.
pub(super) type Samples = BTreeMap<String, Sample>;

/// What a calculation needs to know of a pod.
#[derive(Debug, Clone, Default)]
pub(super) struct PodState {
    pub name: String,
    pub is_going: bool,
    pub phase: String,
    pub started: Option<Timestamp>,
    /// Whether it is ready, and since when that is so.
    pub ready: Option<(bool, Timestamp)>,
}

/// By how much a ratio may miss one, downwards and upwards.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tolerances {
    pub down: f64,
    pub up: f64,
}

impl Tolerances {
    fn allow(self, ratio: f64) -> bool {
        (1.0 - self.down) <= ratio && ratio <= (1.0 + self.up)
    }
}

/// What pods should use: a share of what they request, or so much each.
#[derive(Debug, Clone, Copy)]
pub(super) enum Target<'a> {
    /// In percent of these requests.
    Utilization { percent: i32, requests: &'a BTreeMap<String, i64> },
    /// This much on the average.
    Average { milli_value: i64 },
}

/// How many pods there should be, and what they used.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Proposal {
    pub replicas: i32,
    pub usage: Usage,
}

/// What pods used on the average.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Usage {
    pub utilization: Option<i32>,
    pub milli_average: i64,
}

/// The pods by what their samples are good for.
#[derive(Debug, Default)]
struct Groups {
    ready: usize,
    unready: BTreeSet<String>,
    missing: BTreeSet<String>,
    ignored: BTreeSet<String>,
}

/// How many pods bring the samples to the target.
pub(super) fn by_pods(
    pods: &[PodState],
    mut samples: Samples,
    target: Target<'_>,
    current: i32,
    is_cpu: bool,
    tolerances: Tolerances,
    now: Timestamp,
) -> Result<Proposal, String> {
    if pods.is_empty() {
        return Err("No pods returned by selector while calculating replica count".to_owned());
    }
    let groups = group(pods, &samples, is_cpu, now);
    samples.retain(|pod, _| !groups.ignored.contains(pod) && !groups.unready.contains(pod));
    if samples.is_empty() {
        return Err("did not receive metrics for targeted pods (pods might be unready)".to_owned());
    }
    let (ratio, usage) = usage_ratio(&samples, target)?;
    let stay = Proposal { replicas: current, usage };
    let grows_with_unready = !groups.unready.is_empty() && ratio > 1.0;
    if !grows_with_unready && groups.missing.is_empty() {
        if tolerances.allow(ratio) {
            return Ok(stay);
        }
        return Ok(Proposal { replicas: scaled(ratio, groups.ready), usage });
    }
    // Who is not known is presumed to use what makes the change smaller.
    let presumed = |milli_value| Sample { milli_value, at: now, window: SignedDuration::ZERO };
    for pod in &groups.missing {
        if ratio < 1.0 {
            let full = match target {
                Target::Utilization { percent, requests } => {
                    let request = requests.get(pod).copied().unwrap_or_default();
                    request.saturating_mul(i64::from(percent.max(100))) / 100
                }
                Target::Average { milli_value } => milli_value,
            };
            samples.insert(pod.clone(), presumed(full));
        } else if ratio > 1.0 {
            samples.insert(pod.clone(), presumed(0));
        }
    }
    if grows_with_unready {
        samples.extend(groups.unready.iter().map(|pod| (pod.clone(), presumed(0))));
    }
    let (new_ratio, _) = usage_ratio(&samples, target)?;
    let turned = (ratio < 1.0 && new_ratio > 1.0) || (ratio > 1.0 && new_ratio < 1.0);
    if turned || tolerances.allow(new_ratio) {
        return Ok(stay);
    }
    let replicas = scaled(new_ratio, samples.len());
    // The presumptions must not change the direction either.
    if (new_ratio < 1.0 && replicas > current) || (new_ratio > 1.0 && replicas < current) {
        return Ok(stay);
    }
    Ok(Proposal { replicas, usage })
}

/// How many pods bring a value, which all of them share, to its target.
pub(super) fn by_value(
    milli_value: i64,
    milli_target: i64,
    current: i32,
    ready: usize,
    tolerances: Tolerances,
) -> i32 {
    let ratio = milli_value as f64 / milli_target.max(1) as f64;
    match current {
        0 => scaled(ratio, 1),
        _ if tolerances.allow(ratio) => current,
        _ => scaled(ratio, ready),
    }
}

/// How many pods bring each one's part of a value to the target.
pub(super) fn by_average(
    milli_value: i64,
    milli_target: i64,
    current: i32,
    tolerances: Tolerances,
) -> i32 {
    let target = milli_target.max(1) as f64;
    let ratio = milli_value as f64 / (target * f64::from(current));
    if current != 0 && tolerances.allow(ratio) {
        return current;
    }
    scaled(milli_value as f64 / target, 1)
}

/// How many pods serve.
pub(super) fn ready_count(pods: &[PodState]) -> Result<usize, String> {
    if pods.is_empty() {
        return Err("no pods returned by selector while calculating replica count".to_owned());
    }
    let serves =
        |pod: &&PodState| pod.phase == "Running" && pod.ready.is_some_and(|(is_ready, _)| is_ready);
    Ok(pods.iter().filter(serves).count())
}

fn group(pods: &[PodState], samples: &Samples, is_cpu: bool, now: Timestamp) -> Groups {
    let mut groups = Groups::default();
    for pod in pods {
        let name = pod.name.clone();
        if pod.is_going || pod.phase == "Failed" {
            groups.ignored.insert(name);
        } else if pod.phase == "Pending" {
            groups.unready.insert(name);
        } else if let Some(sample) = samples.get(&name) {
            if is_cpu && is_warming_up(pod, sample, now) {
                groups.unready.insert(name);
            } else {
                groups.ready += 1;
            }
        } else {
            groups.missing.insert(name);
        }
    }
    groups
}

/// Whether the pod's CPU says nothing yet about its load.
fn is_warming_up(pod: &PodState, sample: &Sample, now: Timestamp) -> bool {
    let (Some((is_ready, since)), Some(started)) = (pod.ready, pod.started) else { return true };
    if started + CPU_INITIALIZATION > now {
        !is_ready || sample.at < since + sample.window
    } else {
        !is_ready && started + INITIAL_READINESS > since
    }
}

fn usage_ratio(samples: &Samples, target: Target<'_>) -> Result<(f64, Usage), String> {
    match target {
        Target::Utilization { percent, requests } => {
            let (mut used, mut requested, mut count) = (0_i64, 0_i64, 0_i64);
            for (pod, sample) in samples {
                // A pod that is no more.
                let Some(request) = requests.get(pod) else { continue };
                used = used.saturating_add(sample.milli_value);
                requested = requested.saturating_add(*request);
                count += 1;
            }
            if requested == 0 {
                return Err("no metrics returned matched known pods".to_owned());
            }
            let utilization = used.saturating_mul(100) / requested;
            let utilization = i32::try_from(utilization).unwrap_or(i32::MAX);
            let ratio = f64::from(utilization) / f64::from(percent.max(1));
            let usage = Usage { utilization: Some(utilization), milli_average: used / count };
            Ok((ratio, usage))
        }
        Target::Average { milli_value } => {
            let total: i64 = samples.values().map(|sample| sample.milli_value).sum();
            let average = total / i64::try_from(samples.len()).unwrap_or(1).max(1);
            let ratio = average as f64 / milli_value.max(1) as f64;
            Ok((ratio, Usage { utilization: None, milli_average: average }))
        }
    }
}

/// Rounded up, so that the target is reached.
fn scaled(ratio: f64, count: usize) -> i32 {
    // A float that is too large becomes the largest number.
    (ratio * count as f64).ceil() as i32
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;
    const USUAL: Tolerances = Tolerances { down: TOLERANCE, up: TOLERANCE };

    /// One pod for each word: `r` ready since long, `p` pending, `u` never ready, `y` young and just ready, `f` failed,
    /// `g` going; with the milli value that it uses, or `-` for no sample.
    fn pods(words: &str) -> (Vec<PodState>, Samples) {
        let mut samples = Samples::new();
        let pods = words.split_whitespace().enumerate().map(|(number, word)| {
            let (kind, used) = word.split_at(1);
            let name = format!("pod-{number}");
            if let Ok(milli_value) = used.parse() {
                let window = SignedDuration::from_secs(30);
                samples.insert(name.clone(), Sample { milli_value, at: NOW, window });
            }
            let long = NOW - SignedDuration::from_hours(1);
            let (started, ready) = match kind {
                "u" => (long, (false, long + SignedDuration::from_secs(1))),
                "y" => (
                    NOW - SignedDuration::from_secs(20),
                    (true, NOW - SignedDuration::from_secs(10)),
                ),
                _ => (long, (true, long)),
            };
            let phase = match kind {
                "p" => "Pending",
                "f" => "Failed",
                _ => "Running",
            };
            PodState {
                name,
                is_going: kind == "g",
                phase: phase.to_owned(),
                started: Some(started),
                ready: Some(ready),
            }
        });
        (pods.collect(), samples)
    }

    #[test]
    fn requests_and_use_say_how_many_pods() {
        // Each pod requests 1000.
        let check = |words: &str, percent: i32, expected: Result<(i32, i32), &str>| {
            let (pods, samples) = pods(words);
            let requests = pods.iter().map(|pod| (pod.name.clone(), 1000)).collect();
            let target = Target::Utilization { percent, requests: &requests };
            let current = i32::try_from(pods.len()).unwrap();
            let found = by_pods(&pods, samples, target, current, true, USUAL, NOW);
            let found = found.map(|found| (found.replicas, found.usage.utilization.unwrap()));
            assert_eq!(found, expected.map_err(ToOwned::to_owned), "{words}");
        };
        check("r300 r500 r700", 30, Ok((5, 50)));
        check("r300 r500 r700", 50, Ok((3, 50)));
        check("r300 r500 r700", 47, Ok((3, 50)));
        check("r100 r300 r500 r250 r250", 50, Ok((3, 28)));
        // Pods that start count as idle when it is to grow, and not at all when it is to shrink.
        check("y300 r500 r700", 30, Ok((4, 60)));
        check("r300 p- p-", 30, Ok((3, 30)));
        check("u400 r500 r700", 30, Ok((4, 60)));
        check("y100 r100 r100", 50, Ok((1, 10)));
        // What is not known brakes the change.
        check("r900 r-", 50, Ok((2, 90)));
        check("r2000 r-", 50, Ok((4, 200)));
        check("r100 r-", 50, Ok((2, 10)));
        check("r100 r100 r100 r-", 50, Ok((3, 10)));
        // Those that go are not asked.
        check("r1000 f100 g100", 50, Ok((2, 100)));
        check("", 50, Err("No pods returned by selector while calculating replica count"));
        check("p-", 50, Err("did not receive metrics for targeted pods (pods might be unready)"));
    }

    #[test]
    fn averages_say_how_many_pods() {
        let check = |words: &str, milli_value: i64, expected: (i32, i64)| {
            let (pods, samples) = pods(words);
            let current = i32::try_from(pods.len()).unwrap();
            let target = Target::Average { milli_value };
            let found = by_pods(&pods, samples, target, current, false, USUAL, NOW).unwrap();
            assert_eq!((found.replicas, found.usage.milli_average), expected, "{words}");
        };
        check("r20000 r10000 r30000", 15000, (4, 20000));
        check("r20000 r10000 r30000", 19000, (3, 20000));
        check("r12000 r12000 r12000 r12000 r12000", 20000, (3, 12000));
        // Without CPU the young count as they are.
        check("y30000 r30000", 15000, (4, 30000));
        check("r10000 r-", 20000, (2, 10000));
    }

    #[test]
    fn shared_values_say_how_many_pods() {
        let check = |value: i64, target: i64, current: i32, ready: usize, expected: (i32, i32)| {
            let each = by_value(value, target, current, ready, USUAL);
            let average = by_average(value, target, current, USUAL);
            assert_eq!((each, average), expected, "{value} {target} {current}");
        };
        check(20_000, 15_000, 3, 3, (4, 2));
        check(15_500, 15_000, 3, 3, (3, 2));
        check(8_600, 4_400, 0, 0, (2, 2));
        check(30_000, 10_000, 3, 2, (6, 3));
        check(1, 10_000, 5, 5, (1, 1));
        check(0, 10_000, 5, 5, (0, 0));
    }
}
