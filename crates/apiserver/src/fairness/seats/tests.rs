//! Seats that are taken, lent, waited for and given back.

use futures::FutureExt as _;
use serde_json::json;

use super::*;

fn level(name: &str, shares: u64, lendable: u64, queuing: Option<Queuing>) -> LevelSpec {
    LevelSpec {
        name: name.to_owned(),
        is_exempt: false,
        shares,
        lendable_percent: lendable,
        borrowing_limit_percent: Some(0),
        queuing,
    }
}

const QUEUING: Option<Queuing> = Some(Queuing { queues: 8, hand_size: 2, length_limit: 2 });

/// Takes so many seats, or waits for them.
async fn wide(seats: &Seats, level: usize, flow: u64, width: usize) -> Result<Seat<'_>, Refusal> {
    let schema = Arc::from("schema");
    let wish = Wish { flow, seats: width, is_patient: false, schema: &schema, distinguisher: "" };
    match seats.ask(level, &wish)? {
        Asked::Seated(seat) => Ok(seat),
        Asked::Queued(waiting) => waiting.seated().await,
    }
}

async fn take(
    seats: &Seats,
    level: usize,
    flow: u64,
    is_patient: bool,
) -> Result<Seat<'_>, Refusal> {
    let schema = Arc::from("schema");
    let wish = Wish { flow, seats: 1, is_patient, schema: &schema, distinguisher: "" };
    match seats.ask(level, &wish)? {
        Asked::Seated(seat) => Ok(seat),
        Asked::Queued(waiting) => waiting.seated().await,
    }
}

/// Takes a seat if there is one at once.
fn now(seats: &Seats, level: usize) -> Result<Option<Seat<'_>>, Refusal> {
    take(seats, level, 1, false).now_or_never().transpose()
}

#[tokio::test]
async fn wide_requests_take_several_seats_and_are_waited_for() {
    let seats = Seats::new(Duration::from_secs(60));
    let place = seats.configure(&[level("a", 1, 0, QUEUING)], 12)[0];
    // A request takes a sixth of the level at most: two of the twelve.
    let mut held: Vec<_> =
        (0..5).map(|_| wide(&seats, place, 1, 9).now_or_never().unwrap().unwrap()).collect();
    assert_eq!((seats.loads()[0].executing, seats.loads()[0].seated), (5, 10));
    let one = now(&seats, place).unwrap().unwrap();
    let mut waits = Box::pin(wide(&seats, place, 1, 2));
    assert!(waits.as_mut().now_or_never().is_none(), "one seat is not enough");
    let queued = seats.waiting();
    assert_eq!((queued.len(), queued[0].seats, &*queued[0].schema), (1, 2, "schema"));
    assert!(seats.queues()[0].1.contains(&(1, 2)));
    drop(one);
    let wide_one = waits.now_or_never().unwrap().unwrap();
    drop(wide_one);
    held.clear();
    assert_eq!(seats.loads()[0].seated, 0);
}

#[test]
fn a_level_says_what_it_is() {
    let object = json!({
        "metadata": { "name": "a" },
        "spec": { "type": "Limited", "limited": {
            "nominalConcurrencyShares": 7,
            "borrowingLimitPercent": 10,
            "limitResponse": {
                "type": "Queue",
                "queuing": { "queues": 8, "handSize": 2, "queueLengthLimit": 2 },
            },
        } },
    });
    let expected = LevelSpec { borrowing_limit_percent: Some(10), ..level("a", 7, 0, QUEUING) };
    assert_eq!(LevelSpec::read(&object), expected);
}

#[test]
fn a_hand_is_always_the_same_and_without_repetition() {
    for flow in [0, 1, 77, u64::MAX, 0x1234_5678_9abc_def0] {
        let hand = deal(flow, 16, 6);
        assert_eq!(hand, deal(flow, 16, 6));
        assert!(hand.windows(2).all(|pair| pair[0] < pair[1]) && hand[5] < 16, "{hand:?}");
    }
    assert_eq!(deal(5, 2, 6).as_slice(), [0, 1]);
    assert_ne!(deal(u64::MAX / 5, 128, 6), deal(u64::MAX / 7, 128, 6));
}

#[tokio::test]
async fn seats_are_given_by_shares_and_back() {
    let seats = Seats::new(Duration::from_secs(60));
    let places = seats.configure(&[level("a", 1, 0, None), level("b", 3, 0, QUEUING)], 4);
    let held = now(&seats, places[0]).unwrap().unwrap();
    assert_eq!(now(&seats, places[0]).err(), Some(Refusal::Full));
    drop(held);
    assert!(now(&seats, places[0]).unwrap().is_some());
    let of_b: Vec<_> = (0..3).map(|_| now(&seats, places[1]).unwrap().unwrap()).collect();
    assert!(now(&seats, places[1]).unwrap().is_none(), "waits");
    drop(of_b);
    assert!(now(&seats, places[1]).unwrap().is_some());
    let loads = seats.loads();
    assert!(loads.iter().all(|load| load.executing == 0 && load.waiting == 0));
}

#[tokio::test]
async fn who_waits_gets_the_next_seat_or_is_told_in_time() {
    let seats = Seats::new(Duration::from_millis(20));
    let place = seats.configure(&[level("a", 1, 0, QUEUING)], 1)[0];
    let held = now(&seats, place).unwrap().unwrap();
    let mut first = Box::pin(take(&seats, place, 1, false));
    assert!(first.as_mut().now_or_never().is_none());
    let late = take(&seats, place, 1, false).await;
    assert_eq!(late.err(), Some(Refusal::TimedOut));
    drop(held);
    // The first one's time is over, too, but its turn has come before anybody looked.
    let second = first.await.unwrap();
    let waiting: Vec<_> = (0..4)
        .map(|_| Box::pin(take(&seats, place, 1, false)))
        .map(|mut waiting| {
            assert!(waiting.as_mut().now_or_never().is_none());
            waiting
        })
        .collect();
    assert_eq!(now(&seats, place).err(), Some(Refusal::QueueFull));
    assert!(take(&seats, place, 1, true).now_or_never().is_none(), "patience joins any queue");
    drop(waiting);
    drop(second);
    assert!(now(&seats, place).unwrap().is_some());
}

#[tokio::test]
async fn a_flood_of_one_flow_leaves_another_its_turn() {
    let seats = Seats::new(Duration::from_secs(60));
    let queuing = Some(Queuing { queues: 64, hand_size: 4, length_limit: 50 });
    let place = seats.configure(&[level("a", 1, 0, queuing)], 1)[0];
    let held = now(&seats, place).unwrap().unwrap();
    let mut flood: Vec<_> = (0..100).map(|_| Box::pin(take(&seats, place, 1, false))).collect();
    assert!(flood.iter_mut().all(|waiting| waiting.as_mut().now_or_never().is_none()));
    let mut other = Box::pin(take(&seats, place, u64::MAX / 3, false));
    assert!(other.as_mut().now_or_never().is_none());
    drop(held);
    let mut turns = 0;
    while other.as_mut().now_or_never().is_none() {
        turns += 1;
        let served = flood
            .iter_mut()
            .position(|waiting| matches!(waiting.as_mut().now_or_never(), Some(Ok(_))));
        drop(flood.remove(served.unwrap()));
    }
    assert!(turns <= 4, "{turns} of the flood came first");
}

#[tokio::test]
async fn unused_seats_are_lent_and_lenders_come_first() {
    let seats = Seats::new(Duration::from_secs(60));
    let borrower = LevelSpec { borrowing_limit_percent: None, ..level("a", 1, 0, QUEUING) };
    let places = seats.configure(&[borrower, level("b", 3, 67, QUEUING)], 4);
    let mut held: Vec<_> = (0..3).map(|_| now(&seats, places[0]).unwrap().unwrap()).collect();
    let mut more = Box::pin(take(&seats, places[0], 1, false));
    assert!(more.as_mut().now_or_never().is_none(), "the lender keeps one");
    let own = now(&seats, places[1]).unwrap().unwrap();
    let mut back = Box::pin(take(&seats, places[1], 1, false));
    assert!(back.as_mut().now_or_never().is_none());
    drop(held.pop());
    let back = back.now_or_never().unwrap().unwrap();
    assert!(more.as_mut().now_or_never().is_none());
    drop(back);
    assert!(more.now_or_never().unwrap().is_ok());
    drop(own);
}

#[tokio::test]
async fn levels_come_change_and_go_while_requests_run() {
    let seats = Seats::new(Duration::from_secs(60));
    let places = seats.configure(&[level("a", 1, 0, QUEUING), level("b", 1, 0, QUEUING)], 2);
    let held = now(&seats, places[1]).unwrap().unwrap();
    let mut waits = Box::pin(take(&seats, places[1], 1, false));
    assert!(waits.as_mut().now_or_never().is_none());
    let again = seats.configure(&[level("a", 1, 0, QUEUING), level("c", 1, 0, QUEUING)], 2);
    assert_eq!(again[0], places[0]);
    assert_ne!(again[1], places[1], "somebody is still there");
    drop(held);
    drop(waits.now_or_never().unwrap().unwrap());
    let narrow = Some(Queuing { queues: 1, hand_size: 1, length_limit: 9 });
    let more = seats.configure(
        &[level("a", 1, 0, narrow), level("c", 1, 0, QUEUING), level("d", 1, 0, QUEUING)],
        3,
    );
    assert_eq!(more, [again[0], again[1], places[1]], "an empty place is taken again");
}
