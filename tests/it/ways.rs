//! What containers reach on other servers, from the launch that makes them on.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use quarry::clock::SetClock;
use quarry::docker::Engine;
use quarry::docker::engines::Engines;
use quarry::docker::fake::Fake;
use quarry::grid::Standing;
use quarry::hq::{Awake, Hq, Parts};
use quarry::instruction::tarball::{FORMAT, Manifest};
use quarry::instruction::{Instruction, Settings};
use quarry::launch::{Ground, Identity};
use quarry::names::{ImageId, ReleaseNumber, ServerName, StackName};
use quarry::router::fake::FakeEdge;
use quarry::servers::ssh::KeyPair;
use quarry::servers::supply::{Supply, SupplyError};
use quarry::servers::{Record, Way};
use quarry::stack::{Kind, Overlap};
use quarry::units::Megabytes;

use crate::crash::settings;

/// Every server has every image.
struct Everywhere;

#[async_trait]
impl Supply for Everywhere {
    async fn image(&self, _: &ServerName, _: &ImageId) -> Result<(), SupplyError> {
        Ok(())
    }

    async fn make_folder(&self, _: &ServerName, _: &Path) -> Result<(), SupplyError> {
        Ok(())
    }

    async fn remove_folder(&self, _: &ServerName, _: &Path) -> Result<(), SupplyError> {
        Ok(())
    }
}

fn hq(root: &Path, engine: &Fake) -> Arc<Hq> {
    let mut hq = Hq::new(Parts {
        seal: crate::harness::seal(),
        root: root.to_owned(),
        settings: quarry::etc::Settings::default(),
        db: Arc::new(quarry::db::fake::Fake::new()),
        engines: Engines::new("hq".parse().unwrap(), Arc::new(engine.clone())),
        edge: Some(Arc::new(FakeEdge::new())),
        awake: Awake::Yes,
        clock: Arc::new(SetClock::at(Timestamp::UNIX_EPOCH)),
        identity: Identity { id: "0123abcd".into(), suffix: String::new(), secret: String::new() },
        ground: Ground { address: "10.0.0.1".parse().unwrap(), ports: 20_000..=20_099 },
        url_port: String::new(),
    });
    Arc::get_mut(&mut hq).unwrap().launcher.supply = Arc::new(Everywhere);
    hq
}

/// A server of 1 GB at 10.0.0.2.
fn record(root: &Path) -> Record {
    let key = KeyPair::open_or_create(&root.join("some_key")).unwrap().authorized_key();
    Record {
        way: Some(Way {
            address: "root@10.0.0.2".parse().unwrap(),
            host_key: key.parse().unwrap(),
            ip: "10.0.0.2".parse().unwrap(),
            hq: "10.0.0.1".parse().unwrap(),
        }),
        hostname: "s1".into(),
        tags: BTreeSet::new(),
        size: Megabytes(1000),
        memory: Megabytes(1000),
        processors: 2,
        architecture: "amd64".into(),
        standing: Standing::Up,
        order: None,
    }
}

#[tokio::test]
async fn containers_keep_their_way_to_a_service_when_the_launch_that_made_them_is_over() {
    let root = tempfile::tempdir().unwrap();
    let (here, there) = (Fake::new(), Fake::new());
    let image = here.add_image("quarry/blog/web:1");
    there.load(here.image(image.as_str()).await.unwrap().unwrap());
    let hq = hq(root.path(), &here);
    let server: ServerName = "s1".parse().unwrap();
    hq.enrol(&server, &record(root.path()), Arc::new(there));
    // What networks each server has is known from before the launch, and nobody asks again.
    hq.survey().await.unwrap();

    let stack: StackName = "blog".parse().unwrap();
    let user = "ann".parse().unwrap();
    hq.ensure_stack(&stack, &user).await.unwrap();
    let on = |server: &str, settings: Box<Settings>| {
        Box::new(Settings { filter: quarry::grid::filter::Filter::new([server]).unwrap(), ..*settings })
    };
    let release = ReleaseNumber(1);
    let instructions = [
        Instruction::Ensure {
            node: "kv".parse().unwrap(),
            settings: on("hq", settings(&image, Kind::Service, Overlap::StopFirst)),
        },
        Instruction::Deploy {
            node: "web".parse().unwrap(),
            release,
            count: 1,
            settings: on("s1", settings(&image, Kind::Web, Overlap::StartFirst)),
        },
    ];
    let manifest = Manifest { format: FORMAT, stack, release, commit: None, env_version: 0 };
    let job = hq.launch_job(&manifest, &instructions, &user).await.unwrap();
    let plan = hq.operate(job, &|_| {}).await.unwrap();

    let service: SocketAddr = plan.procs[&"kv".parse().unwrap()].published[0].1;
    let wanted = hq.wanted(quarry::hq::agents::wanted::Ports { ssh: 2222, http: 80, https: Some(443) }).await.unwrap();
    let ways: BTreeMap<_, Vec<SocketAddr>> =
        wanted.ways.iter().map(|(server, ways)| (server.as_str(), ways.iter().map(|way| way.to).collect())).collect();
    assert_eq!(ways, BTreeMap::from([("hq", vec![]), ("s1", vec![service])]));
}
