//! One contract for every cloud.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use quarry::servers::cloud::fake::Fake;
use quarry::servers::cloud::process::Program;
use quarry::servers::cloud::{Cloud, Machine, MachineState, Order, Token};
use quarry::units::{Megabytes, Millis};

/// Longer than a machine of any cloud here takes to come or go.
const LONG: Duration = Duration::from_secs(60);

pub fn order(owner: &str, name: &str, key: &str) -> Order {
    let name = name.parse().unwrap();
    Order {
        owner: owner.to_owned(),
        token: Token::new(owner, &name, u64::from(std::process::id())),
        name,
        size: Megabytes(2048),
        tags: ["ssd".to_owned(), "eu-west".to_owned()].into(),
        key: key.to_owned(),
    }
}

async fn find(cloud: &dyn Cloud, order: &Order) -> Option<Machine> {
    let machines = cloud.list(&order.owner).await.unwrap();
    let mut found: Vec<Machine> = machines.into_iter().filter(|machine| machine.token == order.token).collect();
    assert!(found.len() <= 1, "an order is a machine once: {found:?}");
    found.pop()
}

async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let looking = async {
        loop {
            match look().await {
                Some(found) => return found,
                None => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    };
    tokio::time::timeout(LONG, looking).await.unwrap_or_else(|_| panic!("waited in vain for {what}"))
}

/// What every cloud promises. The machines are gone again afterwards.
pub async fn keeps_the_contract(cloud: &dyn Cloud, key: &str) {
    let (first, second, other) =
        (order("0a1b2c3d", "auto1", key), order("0a1b2c3d", "auto2", key), order("another", "auto1", key));
    let made = cloud.create(&first).await.unwrap();
    assert_eq!(made.token, first.token);
    // An answer that got lost: the order is repeated.
    assert_eq!(cloud.create(&first).await.unwrap().id, made.id);
    let theirs = cloud.create(&other).await.unwrap();
    assert_ne!(theirs.id, made.id);
    assert_ne!(cloud.create(&second).await.unwrap().id, made.id);

    let there = until("the machine to be there", async || {
        find(cloud, &first).await.filter(|machine| machine.state == MachineState::Running && machine.address.is_some())
    });
    let there = there.await;
    assert_eq!(there.id, made.id);
    let listed = cloud.list("0a1b2c3d").await.unwrap();
    assert!(listed.iter().all(|machine| machine.id != theirs.id), "another HQ's machine is shown: {listed:?}");
    assert!(listed.is_sorted_by_key(|machine| machine.id.clone()), "{listed:?}");

    cloud.destroy(&there).await.unwrap();
    let gone = async || match find(cloud, &first).await {
        Some(machine) if machine.state != MachineState::Stopping => None,
        Some(_) | None => Some(()),
    };
    until("the machine to go", gone).await;
    until("the machine to be gone", async || find(cloud, &first).await.is_none().then_some(())).await;
    cloud.destroy(&there).await.unwrap();
    assert!(find(cloud, &second).await.is_some(), "the other one stays");
    for left in [&second, &other] {
        let machine = until("the machine to be listed", async || find(cloud, left).await).await;
        cloud.destroy(&machine).await.unwrap();
        until("it to be gone", async || find(cloud, left).await.is_none().then_some(())).await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_cloud_in_memory_keeps_the_contract() {
    let cloud = Fake::new();
    keeps_the_contract(&cloud, "ssh-ed25519 AAAA").await;
    let slow = Fake::new();
    slow.boots_after(Duration::from_secs(20));
    slow.lists_after(Duration::from_secs(5));
    slow.gone_after(Duration::from_secs(20));
    keeps_the_contract(&slow, "ssh-ed25519 AAAA").await;
}

/// A cloud of files, as somebody might write one for the first time.
const PAPER: &str = r#"#!/bin/bash
set -euo pipefail
cd "$(dirname "$0")"
input=$(cat)
field() { jq -r ".$1" <<<"$input"; }
show() { jq -c '{id, token, state: "running", address}' "$1"; }
case $1 in
    create)
        file=machines/$(field token)
        [[ -e $file ]] || jq '. + {id: .token, address: "10.0.0.7"}' <<<"$input" >"$file"
        show "$file"
        ;;
    list)
        owner=$(field owner)
        for file in machines/*; do
            [[ ! -e $file || $(jq -r .owner "$file") != "$owner" ]] || show "$file"
        done | jq -s '{machines: .}'
        ;;
    destroy) rm -f "machines/$(field token)" ;;
esac
"#;

fn executable(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

#[tokio::test]
async fn a_program_of_a_few_lines_keeps_the_contract() {
    assert!(Path::new("/usr/bin/jq").exists(), "install it: apt-get install jq");
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("machines")).unwrap();
    let path = folder.path().join("cloud");
    executable(&path, PAPER);
    keeps_the_contract(&Program::new(&path, Millis::seconds(30)), "ssh-ed25519 AAAA $(touch x) \"'").await;
}
