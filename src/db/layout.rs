//! Every key of the tree in one place.

pub use super::act::{all, parse_json, put_json, read_json};
use super::{DbError, Key};
use crate::names::{
    ContainerName, Domain, EnvName, KeyName, NodeName, ReleaseNumber, ServerName, StackName, TokenName, UserName,
};

fn key(text: String) -> Key {
    text.parse().expect("keys made of checked names are well formed")
}

/// Everything of one stack: the prefix `stacks/<stack>`.
pub fn stack(stack: &StackName) -> String {
    format!("stacks/{stack}")
}

/// `stacks/<stack>/status`: JSON, there for every stack that exists.
pub fn status(stack: &StackName) -> Key {
    key(format!("stacks/{stack}/status"))
}

/// `stacks/<stack>/falls.json`: JSON, containers that fell and are started again ever more slowly.
pub fn falls(stack: &StackName) -> Key {
    key(format!("stacks/{stack}/falls.json"))
}

/// `stacks/<stack>/env/<NAME>`: the bare value.
pub fn env(stack: &StackName, name: &EnvName) -> Key {
    key(format!("stacks/{stack}/env/{name}"))
}

/// The prefix of a stack's variables.
pub fn env_prefix(stack: &StackName) -> String {
    format!("stacks/{stack}/env")
}

/// `stacks/<stack>/envs/<version>.json`: the variables as one release saw them.
pub fn env_version(stack: &StackName, version: u64) -> Key {
    key(format!("stacks/{stack}/envs/{version}.json"))
}

/// `stacks/<stack>/tasks/<node>.json`: JSON, the runs of a task.
pub fn diary(stack: &StackName, node: &NodeName) -> Key {
    key(format!("stacks/{stack}/tasks/{node}.json"))
}

/// `stacks/<stack>/jobs/<name>.json`: JSON, the runs of a job.
pub fn job(stack: &StackName, name: &NodeName) -> Key {
    key(format!("stacks/{stack}/jobs/{name}.json"))
}

/// The prefix of what is kept of a stack's jobs.
pub fn jobs_prefix(stack: &StackName) -> String {
    format!("stacks/{stack}/jobs")
}

/// The prefix of what is kept of a stack's tasks.
pub fn diaries_prefix(stack: &StackName) -> String {
    format!("stacks/{stack}/tasks")
}

/// The prefix of a stack's kept env versions.
pub fn env_versions_prefix(stack: &StackName) -> String {
    format!("stacks/{stack}/envs")
}

/// `stacks/<stack>/front.json`: JSON, what people have ordered of the stack's routing.
pub fn front(stack: &StackName) -> Key {
    key(format!("stacks/{stack}/front.json"))
}

/// `stacks/<stack>/data.json`: on which server the volumes of each node lie, also of nodes that have ended.
pub fn data(stack: &StackName) -> Key {
    key(format!("stacks/{stack}/data.json"))
}

/// `stacks/<stack>/releases/<n>.json`.
pub fn release(stack: &StackName, number: ReleaseNumber) -> Key {
    key(format!("stacks/{stack}/releases/{number}.json"))
}

/// The prefix of a stack's releases.
pub fn releases_prefix(stack: &StackName) -> String {
    format!("stacks/{stack}/releases")
}

/// `proc/<stack>/<node>.json`: what should run.
pub fn proc(stack: &StackName, node: &NodeName) -> Key {
    key(format!("proc/{stack}/{node}.json"))
}

/// The stack that a key below [`PROCS`] or [`JOURNALS`] is of.
pub fn stack_of(key: &Key) -> Option<StackName> {
    let name = key.segments().nth(1)?;
    name.strip_suffix(".json").unwrap_or(name).parse().ok()
}

/// The prefix of what should run of all stacks.
pub const PROCS: &str = "proc";

/// The prefix of what should run of one stack.
pub fn proc_prefix(stack: &StackName) -> String {
    format!("proc/{stack}")
}

/// `journal/<stack>.json`: the operation under way.
pub fn journal(stack: &StackName) -> Key {
    key(format!("journal/{stack}.json"))
}

/// `routes/<stack>.json`: domains and endpoints of one stack.
pub fn routes(stack: &StackName) -> Key {
    key(format!("routes/{stack}.json"))
}

/// The first segments a key may have. A folder of the root that is not named here is no part of the tree.
pub const ROOTS: [&str; 14] = [
    "certs", "config", "embassy", "grid", "hq", "journal", "keys", "proc", "ps", "rights", "routes", "servers",
    "stacks", "tokens",
];

/// The prefix of all stacks' routes.
pub const ROUTES: &str = "routes";
/// The prefix of all stacks.
pub const STACKS: &str = "stacks";
/// The prefix of all journals.
pub const JOURNALS: &str = "journal";
/// The prefix of what says who acts on the tree.
pub const REIGN: &str = "hq";
/// The prefix of all keys.
pub const KEYS: &str = "keys";

/// The prefix of what people may do.
pub const RIGHTS: &str = "rights";

/// `rights/<user>.json`: on which stacks, and whether on all.
pub fn rights(user: &UserName) -> Key {
    key(format!("rights/{user}.json"))
}

/// `keys/<user>/<name>.pub`: one line of OpenSSH public key.
pub fn public_key(user: &UserName, name: &KeyName) -> Key {
    key(format!("keys/{user}/{name}.pub"))
}

/// The prefix of all tokens.
pub const TOKENS: &str = "tokens";

/// `tokens/<user>/<name>.json`: JSON, a token of the HTTP api by its digest.
pub fn token(user: &UserName, name: &TokenName) -> Key {
    key(format!("{TOKENS}/{user}/{name}.json"))
}

/// The prefix of all servers.
pub const SERVERS: &str = "servers";

/// Everything of one server: the prefix `servers/<id>`.
pub fn server(server: &ServerName) -> String {
    format!("{SERVERS}/{server}")
}

/// `servers/<id>/id`, `servers/<id>/ip`, `servers/<id>/hostname`: bare values, for people and scripts.
pub fn server_value(server: &ServerName, name: &str) -> Key {
    key(format!("{SERVERS}/{server}/{name}"))
}

/// `servers/<id>/settings.json`: JSON, there for every server that was added.
pub fn server_settings(server: &ServerName) -> Key {
    key(format!("servers/{server}/settings.json"))
}

/// `ps/<server>/<container>.json`: JSON, a container as its server's agent sees it, under the server's lease.
pub fn ps(server: &ServerName, container: &ContainerName) -> Key {
    key(format!("ps/{server}/{container}.json"))
}

/// The prefix of what all servers are given.
pub const CONFIG: &str = "config";

/// The prefix of the certificates of domains.
pub const CERTIFICATES: &str = "certs/domains";

/// `certs/domains/<domain>.json`: JSON, the certificate of one domain with its key.
pub fn certificate(domain: &Domain) -> Key {
    key(format!("{CERTIFICATES}/{domain}.json"))
}

/// The prefix of what became of tries to get certificates.
pub const TRIES: &str = "certs/tries";

/// `certs/tries/<domain>.json`: JSON, what became of the tries since there was success.
pub fn tries(domain: &Domain) -> Key {
    key(format!("{TRIES}/{domain}.json"))
}

/// The domain that a key below [`CERTIFICATES`] or [`TRIES`] is of.
pub fn domain_of(key: &Key) -> Option<Domain> {
    key.last().strip_suffix(".json")?.parse().ok()
}

/// The prefix of HQ's accounts at authorities.
pub const ACCOUNTS: &str = "certs/accounts";

/// `certs/accounts/<digest>.json`: JSON, HQ's account at the authority whose directory has this digest.
pub fn account(digest: &str) -> Key {
    key(format!("certs/accounts/{digest}.json"))
}

/// `config/network.json`: JSON, whether servers refuse strangers.
pub fn network() -> Key {
    key(format!("{CONFIG}/network.json"))
}

/// The prefix of the config files of every server.
pub const CONFIG_FILES: &str = "config/files";

/// `config/files/<path>`: the file's bytes. What no key may have in it stands there as in URLs: `/etc/.x` is
/// `config/files/etc/%2Ex`.
///
/// # Errors
/// The path is longer than a key may be, or deeper.
pub fn config_file(path: &str) -> Result<Key, DbError> {
    let segment = |segment: &str| {
        let plain = segment.replace('%', "%25").replace('\\', "%5C");
        match plain.strip_prefix('.') {
            Some(rest) => format!("%2E{rest}"),
            None => plain,
        }
    };
    let segments: Vec<String> = path.trim_start_matches('/').split('/').map(segment).collect();
    format!("{CONFIG_FILES}/{}", segments.join("/")).parse()
}

/// The path of the config file with this key.
pub fn config_path(key: &Key) -> Option<String> {
    let path = key.to_string();
    let path = path.strip_prefix(CONFIG_FILES)?.replace("%2E", ".").replace("%5C", "\\");
    Some(path.replace("%25", "%"))
}

/// The prefix of the numbers that ports have at the embassies.
pub const EMBASSY_PORTS: &str = "embassy/ports";

/// `embassy/ports/<number>.json`: JSON, whose number this is.
pub fn embassy_port(number: u16) -> Key {
    key(format!("{EMBASSY_PORTS}/{number}.json"))
}

/// The number that a key below [`EMBASSY_PORTS`] is of.
pub fn embassy_number(key: &Key) -> Option<u16> {
    key.last().strip_suffix(".json")?.parse().ok()
}

/// `grid/grid.json`: the grid's picture.
pub fn grid() -> Key {
    key("grid/grid.json".into())
}

/// `grid/autosize.json`: JSON, within what bounds the grid sizes itself; without it a person adds and removes servers.
pub fn autosize() -> Key {
    key("grid/autosize.json".into())
}

/// The prefix of what HQ has rented from a cloud.
pub const RENTALS: &str = "grid/rentals";

/// `grid/rentals/<server>.json`: JSON, a machine from the intent to order it until it is surely gone.
pub fn rental(server: &ServerName) -> Key {
    key(format!("{RENTALS}/{server}.json"))
}

/// `hq/epoch`: JSON, the HQ that acts, under its lease.
pub fn epoch() -> Key {
    key(format!("{REIGN}/epoch"))
}

/// `hq/last-epoch`: JSON, the latest epoch there was; its number only goes up.
pub fn last_epoch() -> Key {
    key(format!("{REIGN}/last-epoch"))
}

/// `hq/copying`: there while the tree is being copied here, and after a copy that was cut off: nobody may act on a part.
pub fn copying() -> Key {
    key(format!("{REIGN}/copying"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stack_of_a_key_is_known() {
        let stack: StackName = "blog".parse().unwrap();
        for key in [proc(&stack, &"web".parse().unwrap()), journal(&stack)] {
            assert_eq!(stack_of(&key), Some(stack.clone()), "{key}");
        }
    }

    #[test]
    fn the_path_of_a_config_file_comes_back_from_its_key() {
        for path in ["/etc/app.conf", "/etc/.hidden/..x", "/a%2Eb/%", "/a\\b", "/etc/a b;$(c)"] {
            let key = config_file(path).unwrap();
            assert_eq!(config_path(&key).as_deref(), Some(path), "{key}");
        }
        assert!(config_file(&"/a".repeat(300)).is_err());
    }
}
