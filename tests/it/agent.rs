//! The agent of a server: what HQ may rely on, and what becomes of a server that is left alone.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use futures_util::StreamExt;
use quarry::agent::fake::FakeAgent;
use quarry::agent::{Agent, AgentError, Config, Part, Routing, Turn, Vitals};
use quarry::names::ReleaseNumber;
use quarry::network::act::Standing;
use quarry::network::policy::SSH;
use quarry::network::{Containers, Policy};
use quarry::router::{NodeRoutes, Peer, StackRoutes, Target};
use quarry::units::port::Port;
use tokio::time::timeout;

use crate::harness::wait::PATIENCE;

mod lab;

fn turn(generation: u64) -> Turn {
    Turn { epoch: 3, generation }
}

fn config(generation: u64) -> Config {
    Config { label: "quarry.hq=test".to_owned(), ..Config::nothing(turn(generation)) }
}

/// These reach everything, everybody SSH and these ports.
fn policy(peers: &[&str], open: &[u16]) -> Policy {
    let mut ports: std::collections::BTreeSet<Port> = open.iter().map(|port| Port::tcp(*port)).collect();
    ports.insert(SSH);
    Policy {
        peers: peers.iter().map(|peer| peer.parse().unwrap()).collect(),
        open: ports,
        containers: Containers::Free,
    }
}

/// A stack with one domain.
fn table(stack: &str, domain: &str, address: SocketAddr) -> StackRoutes {
    let peer = Peer { container: format!("{stack}.web.1.0").parse().unwrap(), address };
    let node = NodeRoutes::new(vec![domain.parse().unwrap()], Target::Peers(vec![peer]));
    StackRoutes::new(stack.parse().unwrap(), ReleaseNumber(1), [("web".parse().unwrap(), node)])
}

/// Vitals of which this is true, before long.
async fn vitals(agent: &dyn Agent, what: &str, is_so: impl Fn(&Vitals) -> bool) -> Vitals {
    let looking = async {
        loop {
            let Ok(mut told) = agent.vitals().await else { continue };
            while let Some(Ok(vitals)) = told.next().await {
                if is_so(&vitals) {
                    return vitals;
                }
            }
        }
    };
    timeout(PATIENCE, looking).await.unwrap_or_else(|_| panic!("waited in vain for vitals: {what}"))
}

/// What every agent promises. `peers` must keep whoever runs this; `listen` is free for its router.
async fn contract(agent: &dyn Agent, peers: &[&str], listen: SocketAddr) {
    let away: SocketAddr = "127.0.0.1:9".parse().unwrap();
    let blog = table("blog", "blog.test", away);
    assert_eq!(agent.tables().await, Err(AgentError::NoRouter));
    assert_eq!(agent.route(turn(1), &Routing::Set(blog.clone())).await, Err(AgentError::NoRouter));

    let first = Config { router: Some(vec![listen]), ..config(5) };
    let applied = agent.configure(&first).await.unwrap();
    assert_eq!((applied.turn, applied.trial, applied.failed), (turn(5), None, BTreeMap::<Part, String>::new()));
    assert_eq!(agent.configure(&config(4)).await, Err(AgentError::Stale { held: turn(5) }));
    agent.configure(&first).await.unwrap();
    let told = vitals(agent, "the configuration", |vitals| vitals.config.is_some()).await;
    assert_eq!(told.config.unwrap().turn, turn(5));

    agent.route(turn(2), &Routing::Set(blog.clone())).await.unwrap();
    assert_eq!(agent.tables().await.unwrap(), std::slice::from_ref(&blog));
    let stale = agent.route(turn(1), &Routing::Remove(blog.stack.clone())).await;
    assert_eq!(stale, Err(AgentError::Stale { held: turn(2) }));
    assert_eq!(agent.in_flight(away).await, Ok(0));
    // The domain goes from one stack to another in one change.
    let (shop, wiki) = (table("shop", "blog.test", away), table("blog", "wiki.test", away));
    let taken = agent.route(turn(3), &Routing::Set(shop.clone())).await;
    assert!(matches!(taken, Err(AgentError::Router(_))), "{taken:?}");
    agent.route(turn(4), &Routing::All(vec![shop.clone()])).await.unwrap();
    assert_eq!(agent.tables().await.unwrap(), std::slice::from_ref(&shop), "all others are gone");
    agent.route(turn(5), &Routing::Set(wiki.clone())).await.unwrap();
    agent.route(turn(6), &Routing::Remove(shop.stack)).await.unwrap();
    assert_eq!(agent.tables().await.unwrap(), [wiki]);
    vitals(agent, "the turn of the tables", |vitals| vitals.routes == Some(turn(6))).await;

    rules(agent, peers).await;

    agent.configure(&config(9)).await.unwrap();
    assert_eq!(agent.tables().await, Err(AgentError::NoRouter), "a server that no longer routes");
    agent.configure(&Config { router: Some(vec![listen]), ..config(10) }).await.unwrap();
    assert_eq!(agent.tables().await.unwrap(), [], "old tables do not come back");
    agent.configure(&config(11)).await.unwrap();
}

/// New rules wait for their confirmation; the same again do not.
async fn rules(agent: &dyn Agent, peers: &[&str]) {
    let locked = |generation| Config { locknet: Some(policy(peers, &[80])), ..config(generation) };
    let trial = agent.configure(&locked(6)).await.unwrap().trial.expect("new rules are on trial");
    vitals(agent, "the trial", |vitals| vitals.locknet == Some(Standing::Trial(trial.clone()))).await;
    assert!(matches!(agent.confirm("other").await, Err(AgentError::Trial(_))));
    agent.confirm(&trial).await.unwrap();
    vitals(agent, "the rules", |vitals| vitals.locknet == Some(Standing::Applied)).await;
    assert_eq!(agent.configure(&locked(7)).await.unwrap().trial, None);
    agent.configure(&config(8)).await.unwrap();
    vitals(agent, "no rules", |vitals| vitals.locknet == Some(Standing::Off)).await;
}

#[tokio::test]
async fn the_fake_keeps_the_promises_of_an_agent() {
    contract(&FakeAgent::new(), &["192.0.2.1"], "127.0.0.1:80".parse().unwrap()).await;
}

#[tokio::test]
async fn a_fake_that_is_cut_off_says_nothing_and_takes_nothing() {
    let agent = FakeAgent::new();
    let mut told = agent.vitals().await.unwrap();
    assert!(told.next().await.unwrap().is_ok());
    agent.cut_off();
    assert!(matches!(told.next().await, Some(Err(AgentError::Away { .. }))));
    assert!(told.next().await.is_none());
    assert!(matches!(agent.configure(&config(1)).await, Err(AgentError::Away { .. })));
    agent.heal();
    agent.configure(&config(1)).await.unwrap();
    assert_eq!(agent.history(), [config(1)]);
}
