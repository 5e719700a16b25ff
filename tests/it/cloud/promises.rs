//! What a grid that sizes itself promises.

use std::sync::Arc;
use std::time::Duration;

use quarry::db::{Db, layout};
use quarry::names::ServerName;
use tokio::time::{Instant, sleep, timeout};

use super::land::{CREATE_TIMEOUT, IDLE, Land, Running};
use crate::world::life::Life;

/// Nothing new happens for so long.
async fn pause(time: Duration) {
    sleep(time).await;
}

#[tokio::test(start_paused = true)]
async fn a_launch_without_room_waits_for_a_server_and_a_spare_one_is_given_back() {
    let land = Land::sized(3).await;
    land.cloud.boots_after(Duration::from_secs(90));
    let hq = land.hq().await;
    let began = Instant::now();
    let said = hq.launch("blog", land.web(3, 400)).await.unwrap();
    assert!(began.elapsed() >= Duration::from_secs(90), "it did not wait for the machine");
    assert_eq!(hq.places("blog").await.iter().collect::<std::collections::BTreeSet<_>>().len(), 2);
    let said = said.join("\n");
    for line in [
        "-----> No room for all of 3 containers (1200mb); asking the cloud for it",
        "auto1 is being created",
        "auto1 is up",
    ] {
        assert!(said.contains(line), "{line} is not in\n{said}");
    }
    land.until_standing(&["auto1"]).await;

    // As long as it is needed it stays.
    pause(10 * IDLE).await;
    assert_eq!(land.standing(), ["auto1"]);
    // Spare, and needed again before its time is over.
    hq.scale("blog", "web", 1).await.unwrap();
    pause(IDLE / 2).await;
    hq.scale("blog", "web", 3).await.unwrap();
    pause(10 * IDLE).await;
    assert_eq!((land.standing(), land.cloud.made()), (vec!["auto1".to_owned()], 1));
    // Spare for good.
    hq.scale("blog", "web", 1).await.unwrap();
    let spare = Instant::now();
    land.until_standing(&[]).await;
    assert!(spare.elapsed() >= IDLE, "it went after {:?}", spare.elapsed());
    assert_eq!(hq.places("blog").await, ["hq"]);
    let servers: Vec<ServerName> = hq.hq.server_records().await.unwrap().into_keys().collect();
    assert_eq!(servers, ["hq".parse().unwrap()]);
    assert!(!hq.hq.sizing.is_awaited());
}

#[tokio::test(start_paused = true)]
async fn what_will_never_have_room_is_refused_at_once_and_nothing_is_rented_for_it() {
    let land = Land::sized(2).await;
    let hq = land.hq().await;
    let began = Instant::now();
    let why = hq.launch("blog", land.web(6, 400)).await.unwrap_err().to_string();
    assert!(why.contains("raise `max`"), "{why}");
    assert!(began.elapsed() < Duration::from_secs(5));
    pause(Duration::from_secs(60)).await;
    assert_eq!(land.cloud.made(), 0);
    // Nor does one server overbook any more: there are others to be had.
    hq.launch("shop", land.web(3, 600)).await.unwrap_err();
    hq.launch("shop", land.web(2, 600)).await.unwrap();
    assert_eq!(hq.places("shop").await, ["auto1", "hq"]);
}

#[tokio::test(start_paused = true)]
async fn a_cloud_that_says_no_is_asked_again_and_its_reason_is_shown() {
    let land = Land::sized(3).await;
    land.cloud.quota(Some(0));
    let hq = Arc::new(land.hq().await);
    let launching = {
        let (hq, what) = (hq.clone(), land.web(3, 400));
        tokio::spawn(async move { hq.launch("blog", what).await })
    };
    land.until("the trouble to be shown", || async {
        let listed = hq.hq.list_servers().await.unwrap();
        let auto = listed.iter().find(|server| server.name.as_str() == "auto1");
        auto.is_some_and(|server| {
            server.state == "ordered" && server.why.as_ref().is_some_and(|why| why.contains("quota"))
        })
    })
    .await;
    let grid = hq.hq.grid().await.unwrap();
    assert_eq!((grid.asked.len(), grid.waiting.len()), (1, 3));
    pause(Duration::from_secs(60)).await;
    let tries = land.cloud.calls().iter().filter(|call| call.starts_with("create")).count();
    assert!((3..10).contains(&tries), "{tries} tries in a minute");
    land.cloud.quota(None);
    let said = launching.await.unwrap().unwrap().join("\n");
    assert!(said.contains("the cloud says: the quota of 0 is reached; trying again"), "{said}");
    assert_eq!(land.cloud.made(), 1);

    // A launch that nobody could help is refused in the end, and leaves no order behind.
    land.cloud.quota(Some(1));
    let began = Instant::now();
    let why = hq.launch("shop", land.web(2, 600)).await.unwrap_err().to_string();
    assert!(why.contains("no server has 600mb free"), "{why}");
    assert!(began.elapsed() >= CREATE_TIMEOUT);
    land.until_standing(&["auto1"]).await;
    assert_eq!(land.cloud.made(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_order_whose_answer_was_lost_is_no_second_machine() {
    let land = Land::sized(3).await;
    land.cloud.boots_after(Duration::from_secs(30));
    land.cloud.lists_after(Duration::from_secs(20));
    let hq = land.hq().await;
    land.cloud.lose_answers(4);
    hq.launch("blog", land.web(3, 400)).await.unwrap();
    land.until_standing(&["auto1"]).await;
    assert_eq!(land.cloud.made(), 1);
    hq.scale("blog", "web", 1).await.unwrap();
    land.cloud.lose_answers(3);
    land.until_standing(&[]).await;
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_does_not_come_is_destroyed_and_another_one_asked_for() {
    let land = Land::sized(3).await;
    land.cloud.boots_after(Duration::from_secs(100_000));
    let hq = land.hq().await;
    let why = hq.launch("blog", land.web(3, 400)).await.unwrap_err().to_string();
    assert!(why.contains("no server has 400mb free"), "{why}");
    land.until_standing(&[]).await;
    land.cloud.boots_after(Duration::from_secs(1));
    hq.launch("blog", land.web(3, 400)).await.unwrap();
    land.until_standing(&["auto1"]).await;
    assert_eq!(land.cloud.made(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_person_s_server_and_one_with_data_are_never_given_back() {
    let land = Land::sized(4).await;
    land.add("s1", "10.98.0.1").await;
    let hq = land.hq().await;
    let kept = land.node("db", 1, 900, &["/data"]);
    hq.launch("a", land.web(2, 900)).await.unwrap();
    hq.launch("kept", kept).await.unwrap();
    assert_eq!(
        (hq.places("a").await, hq.places("kept").await),
        (vec!["hq".into(), "s1".into()], vec!["auto1".to_owned()])
    );
    // It rests, and its data does not.
    hq.scale("kept", "db", 0).await.unwrap();
    hq.scale("a", "web", 0).await.unwrap();
    pause(20 * IDLE).await;
    assert_eq!(land.standing(), ["auto1"]);
    let records = hq.hq.server_records().await.unwrap();
    assert!(["hq", "s1", "auto1"].iter().all(|name| records.contains_key(&name.parse::<ServerName>().unwrap())));
    // Until its stack goes.
    let stack = "kept".parse().unwrap();
    {
        let _turn = hq.hq.turn(&stack, "a test", &|_| {}).await;
        hq.hq.destroy(&stack, &|_| {}).await.unwrap();
    }
    land.until_standing(&[]).await;
    assert!(hq.hq.server_records().await.unwrap().contains_key(&"s1".parse::<ServerName>().unwrap()));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_leaves_stays_when_its_room_is_needed() {
    let land = Land::sized(2).await;
    let hq = Arc::new(land.hq().await);
    hq.launch("first", land.web(1, 700)).await.unwrap();
    hq.launch("blog", land.web(1, 400)).await.unwrap();
    assert_eq!(hq.places("blog").await, ["auto1"]);
    hq.scale("first", "web", 0).await.unwrap();
    land.until("it to leave", || async { land.rentals().await == ["auto1 leaving"] }).await;
    // What leaves is on its way to HQ's own server, where there is no room for both.
    hq.launch("shop", land.web(1, 700)).await.unwrap();
    land.until_standing(&["auto1"]).await;
    assert_eq!((hq.places("shop").await.len(), land.cloud.made()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_its_cloud_has_taken_away_is_replaced() {
    let land = Land::sized(3).await;
    let hq = land.hq().await;
    hq.launch("blog", land.web(3, 400)).await.unwrap();
    land.until_standing(&["auto1"]).await;
    hq.lose(&land, "auto1");
    land.until("another one", || async { land.cloud.made() == 2 }).await;
    land.until("what it ran to run elsewhere", || async { hq.places("blog").await.len() == 3 }).await;
    land.until("the lost one to be forgotten", || async {
        let rentals = land.rentals().await;
        rentals.len() == 1 && rentals[0].ends_with("serving")
    })
    .await;
    assert_eq!(hq.hq.server_records().await.unwrap().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn off_means_that_nothing_more_is_ordered_and_what_serves_stays() {
    let land = Land::sized(3).await;
    let hq = Arc::new(land.hq().await);
    hq.launch("blog", land.web(3, 400)).await.unwrap();
    land.until_standing(&["auto1"]).await;
    land.cloud.boots_after(Duration::from_secs(300));
    let launching = {
        let (hq, what) = (hq.clone(), land.web(2, 500));
        tokio::spawn(async move { hq.launch("shop", what).await })
    };
    land.until("the order", || async { land.rentals().await.len() == 2 }).await;
    hq.hq.size_itself(None).await.unwrap();
    launching.await.unwrap().unwrap_err();
    land.until_standing(&["auto1"]).await;
    hq.scale("blog", "web", 1).await.unwrap();
    pause(10 * IDLE).await;
    assert_eq!(land.standing(), ["auto1"]);
    // A person gives it back.
    hq.hq.remove_server(&"auto1".parse().unwrap(), quarry::hq::servers::leave::Force::Yes, &|_| {}).await.unwrap();
    land.until_standing(&[]).await;
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_hq_knows_nothing_of_is_shown_and_left_alone() {
    let land = Land::sized(3).await;
    let stranger = super::contract::order("0123abcd", "auto9", "ssh-ed25519 AAAA");
    quarry::servers::cloud::Cloud::create(&land.cloud, &stranger).await.unwrap();
    let hq = land.hq().await;
    hq.launch("blog", land.web(3, 400)).await.unwrap();
    let shown = hq.hq.sizing.strangers();
    assert_eq!(shown.iter().map(|machine| machine.token.clone()).collect::<Vec<_>>(), [stranger.token]);
    hq.scale("blog", "web", 1).await.unwrap();
    land.until("the rented one to go", || async { land.standing() == ["auto9"] }).await;
}

/// A stack grows beyond its server and shrinks again.
async fn grow_and_shrink(land: &Land, hq: &Running) {
    if hq.places("blog").await.len() != 3 {
        hq.launch("blog", land.web(3, 400)).await.unwrap();
    }
    // Where the first one was on its way out already, it is another one.
    land.until("one machine", || async {
        let (standing, rentals) = (land.standing(), land.rentals().await);
        standing.len() == 1 && rentals == [format!("{} serving", standing[0])]
    })
    .await;
    hq.scale("blog", "web", 1).await.unwrap();
    land.until_standing(&[]).await;
}

/// How many machines have stood at once at most.
async fn watch(land: Land, most: Arc<std::sync::atomic::AtomicUsize>) {
    loop {
        most.fetch_max(land.standing().len(), std::sync::atomic::Ordering::SeqCst);
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn hq_killed_at_any_instant_loses_no_machine_and_rents_none_twice() {
    let mut killed = 0;
    for instants in 1.. {
        let land = Land::sized(3).await;
        land.cloud.boots_after(Duration::from_secs(10));
        land.cloud.lists_after(Duration::from_secs(3));
        land.cloud.gone_after(Duration::from_secs(5));
        let most = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let watching = tokio::spawn(watch(land.clone(), most.clone()));
        let life = Arc::new(Life::new());
        life.end_after(instants);
        let survived = match land.mortal_hq(life).await {
            Some(doomed) => tokio::select! {
                () = grow_and_shrink(&land, &doomed) => true,
                () = doomed.over() => false,
            },
            None => false,
        };
        if survived {
            watching.abort();
            break;
        }
        killed += 1;
        let next = land.hq().await;
        let when = format!("killed at instant {instants}");
        timeout(Duration::from_secs(7200), grow_and_shrink(&land, &next)).await.unwrap_or_else(|_| panic!("{when}"));
        assert_eq!(most.load(std::sync::atomic::Ordering::SeqCst), 1, "{when}: one machine at a time");
        assert_eq!(next.places("blog").await, ["hq"], "{when}");
        assert_eq!(next.hq.sizing.strangers(), [], "{when}");
        let left = layout::all(&*land.tree, layout::SERVERS).await.unwrap();
        assert!(left.iter().all(|entry| entry.key.as_str().starts_with("servers/hq/")), "{when}: {left:?}");
        assert!(land.tree.read(&layout::autosize()).await.unwrap().is_some(), "{when}");
        watching.abort();
    }
    assert!(killed > 40, "only {killed} instants were tried");
}
