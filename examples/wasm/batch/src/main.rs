//! One piece of a larger computation: counts the primes of its share of the numbers.

use std::env;
use std::process::ExitCode;

/// How many numbers each pod of the Job looks at.
const SHARE: u64 = 200_000;

fn main() -> ExitCode {
    let pod = env::var("POD_NAME").unwrap_or_else(|_| "a pod".to_owned());
    // Kubernetes numbers the pods of an Indexed Job; the others all take the first share.
    let index = match env::var("JOB_COMPLETION_INDEX").map(|index| index.parse::<u64>()) {
        Ok(Ok(index)) => index,
        Ok(Err(error)) => {
            eprintln!("{pod}: JOB_COMPLETION_INDEX is no number: {error}");
            return ExitCode::FAILURE;
        }
        Err(_) => 0,
    };
    let (first, last) = (index * SHARE, (index + 1) * SHARE - 1);
    let primes = (first..=last).filter(|number| is_prime(*number)).count();
    println!("{pod}: {primes} primes from {first} to {last}");
    ExitCode::SUCCESS
}

fn is_prime(number: u64) -> bool {
    number >= 2
        && (2..).take_while(|factor| factor * factor <= number).all(|factor| number % factor != 0)
}
