//! `/debug/api_priority_and_fairness/…`: what goes on, as upstream's tables tell it to who looks for the cause of a wait.

use std::fmt::Write as _;

use super::Fairness;

const PREFIX: &str = "/debug/api_priority_and_fairness/";

/// The text at this path, if there is one.
pub(crate) fn at(fairness: &Fairness, path: &str) -> Option<String> {
    match path.strip_prefix(PREFIX)? {
        "dump_priority_levels" => Some(levels(fairness)),
        "dump_queues" => Some(queues(fairness)),
        "dump_requests" => Some(requests(fairness)),
        _ => None,
    }
}

fn levels(fairness: &Fairness) -> String {
    let mut rows = vec![row(&[
        "PriorityLevelName",
        "ActiveQueues",
        "IsIdle",
        "IsQuiescing",
        "WaitingRequests",
        "ExecutingRequests",
        "DispatchedRequests",
        "RejectedRequests",
        "TimedoutRequests",
    ])];
    let (tallies, queues) = (fairness.tallies(), fairness.seats.queues());
    for load in fairness.loads() {
        let own = || tallies.iter().filter(|tally| tally.level == load.level);
        let refused = |reason: &str| {
            let counts = own().flat_map(|tally| tally.rejected);
            counts.filter(|(why, _)| *why == reason).map(|(_, number)| number).sum::<u64>()
        };
        let active = queues.iter().find(|(name, _)| *name == load.level);
        let active = active.map_or(0, |(_, all)| all.iter().filter(|(size, _)| *size > 0).count());
        rows.push(vec![
            load.level.clone(),
            active.to_string(),
            (load.executing + load.waiting == 0).to_string(),
            false.to_string(),
            load.waiting.to_string(),
            load.executing.to_string(),
            own().map(|tally| tally.dispatched).sum::<u64>().to_string(),
            (refused("concurrency-limit") + refused("queue-full")).to_string(),
            refused("time-out").to_string(),
        ]);
    }
    table(&rows)
}

fn queues(fairness: &Fairness) -> String {
    let mut rows = vec![row(&["PriorityLevelName", "Index", "PendingRequests", "InitialSeatsSum"])];
    for (level, queues) in fairness.seats.queues() {
        for (index, (size, seats)) in queues.into_iter().enumerate() {
            rows.push(vec![level.clone(), index.to_string(), size.to_string(), seats.to_string()]);
        }
    }
    table(&rows)
}

fn requests(fairness: &Fairness) -> String {
    let mut rows = vec![row(&[
        "PriorityLevelName",
        "FlowSchemaName",
        "QueueIndex",
        "RequestIndexInQueue",
        "FlowDistingsher",
        "ArriveTime",
        "InitialSeats",
    ])];
    for queued in fairness.seats.waiting() {
        rows.push(vec![
            queued.level,
            queued.schema,
            queued.queue.to_string(),
            queued.place.to_string(),
            queued.distinguisher,
            coracle_api::time::micros(queued.arrived),
            queued.seats.to_string(),
        ]);
    }
    table(&rows)
}

fn row(cells: &[&str]) -> Vec<String> {
    cells.iter().map(|cell| (*cell).to_owned()).collect()
}

/// Columns under each other, with commas: for people and for programs.
fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| rows.iter().map(|row| row[column].len() + 1).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        for (cell, width) in row.iter().zip(&widths) {
            let cell = format!("{cell},");
            // Writing to a String cannot fail.
            let _ = write!(text, "{cell:<width$} ");
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_under_each_other() {
        let rows = [row(&["Name", "Index"]), row(&["a", "10"])];
        assert_eq!(table(&rows), "Name, Index,\na,    10,\n");
    }
}
