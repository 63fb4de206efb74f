//! Says what time it is, and ends: something for a CronJob.

use std::env;
use std::time::{SystemTime, UNIX_EPOCH};

fn main() {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let (hour, minute, second) = (since / 3600 % 24, since / 60 % 60, since % 60);
    let pod = env::var("POD_NAME").unwrap_or_else(|_| "a pod".to_owned());
    println!("{pod}: it is {hour:02}:{minute:02}:{second:02} UTC");
}
