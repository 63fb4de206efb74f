//! The pause before a container is started or an image pulled again.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

/// Upstream's first pause.
const FIRST: Duration = Duration::from_secs(10);
/// Upstream's longest pause.
const LONGEST: Duration = Duration::from_secs(300);
/// What ran this long is healthy: its pause starts again at the first.
const FORGIVEN_AFTER: Duration = Duration::from_secs(600);

/// A pause that doubles with each failure, as client-go's `flowcontrol.Backoff` does it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Backoff {
    // The pause, and when it was last lengthened.
    current: Option<(Duration, Timestamp)>,
}

impl Backoff {
    /// The pause that holds for something that ended at `since`; zero at the first time.
    pub(crate) fn pause(&self, since: Timestamp) -> Duration {
        match self.current {
            Some((pause, changed)) if !forgiven(changed, since) => pause,
            _ => Duration::ZERO,
        }
    }

    /// Lengthens the pause, because we try again now.
    pub(crate) fn lengthen(&mut self, now: Timestamp) {
        let pause = match self.current {
            Some((pause, changed)) if !forgiven(changed, now) => (pause * 2).min(LONGEST),
            _ => FIRST,
        };
        self.current = Some((pause, now));
    }
}

fn forgiven(changed: Timestamp, since: Timestamp) -> bool {
    since.duration_since(changed)
        > SignedDuration::try_from(FORGIVEN_AFTER).unwrap_or(SignedDuration::MAX)
}

/// `10s`, `2m40s`, `5m0s`: a pause as upstream's messages print it.
pub(crate) fn spelled(pause: Duration) -> String {
    let seconds = pause.as_secs();
    match seconds / 60 {
        0 => format!("{seconds}s"),
        minutes => format!("{minutes}m{}s", seconds % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + second).unwrap()
    }

    #[test]
    fn doubles_from_ten_seconds_to_five_minutes() {
        let mut backoff = Backoff::default();
        let mut now = 0;
        let mut pauses = Vec::new();
        for _ in 0..8 {
            let pause = backoff.pause(at(now));
            pauses.push(pause.as_secs());
            now += i64::try_from(pause.as_secs()).unwrap();
            backoff.lengthen(at(now));
        }
        assert_eq!(pauses, [0, 10, 20, 40, 80, 160, 300, 300]);
    }

    #[test]
    fn is_forgiven_after_ten_good_minutes() {
        let mut backoff = Backoff::default();
        backoff.lengthen(at(0));
        backoff.lengthen(at(10));
        assert_eq!(backoff.pause(at(600)), Duration::from_secs(20));
        assert_eq!(backoff.pause(at(611)), Duration::ZERO);
        backoff.lengthen(at(611));
        assert_eq!(backoff.pause(at(612)), Duration::from_secs(10));
    }

    #[test]
    fn is_spelled_as_upstream_spells_it() {
        for (seconds, spelling) in
            [(10, "10s"), (40, "40s"), (80, "1m20s"), (160, "2m40s"), (300, "5m0s")]
        {
            assert_eq!(spelled(Duration::from_secs(seconds)), spelling);
        }
    }
}
