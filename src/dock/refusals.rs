//! What docker's client may ask of a container that a job cannot be. Nothing of it is dropped in silence: what is neither
//! understood nor at its default is refused.

use serde_json::Value;

/// Keys of a description that [`super::create`] reads, or that mean nothing.
const READ: [&str; 17] = [
    "AttachStderr",
    "AttachStdin",
    "AttachStdout",
    "Cmd",
    "Entrypoint",
    "Env",
    "ExposedPorts",
    "HostConfig",
    "Image",
    "Labels",
    "OpenStdin",
    "StdinOnce",
    "StopTimeout",
    "Tty",
    "Volumes",
    "WorkingDir",
    "ArgsEscaped",
];

/// The same of its `HostConfig`. Every container has an init, and its exposed ports are published anyway.
const READ_OF_HOST: [&str; 10] = [
    "AutoRemove",
    "Binds",
    "ConsoleSize",
    "Init",
    "Memory",
    "Mounts",
    "NanoCpus",
    "PortBindings",
    "PublishAllPorts",
    "RestartPolicy",
];

/// What these keys may hold besides nothing: it is what a job has, or what counts where nothing is said.
const USUAL: [(&str, &[&str]); 8] = [
    ("NetworkMode", &["default", "bridge"]),
    ("IpcMode", &["private"]),
    ("CgroupnsMode", &["private"]),
    ("StopSignal", &["SIGTERM"]),
    ("LogConfig", &[]),
    ("Isolation", &["default"]),
    ("VolumeDriver", &["local"]),
    ("MemorySwappiness", &["-1"]),
];

const RIGHTS: &str = "containers get no rights over their server";
const SPACES: &str = "a container has namespaces of its own";
const SHARES: &str = "memory is limited by -m and processors by --cpus";

/// Options by their keys, each with why not, or with what to do.
const ADVICE: [(&str, &str, &str); 45] = [
    ("Privileged", "--privileged", RIGHTS),
    ("CapAdd", "--cap-add", RIGHTS),
    ("CapDrop", "--cap-drop", "Quarry takes away itself what hardly any program needs"),
    ("SecurityOpt", "--security-opt", "Quarry sets no-new-privileges itself, and the rest stays as the engine has it"),
    ("MaskedPaths", "--security-opt systempaths", RIGHTS),
    ("ReadonlyPaths", "--security-opt systempaths", RIGHTS),
    ("Devices", "--device", RIGHTS),
    ("DeviceCgroupRules", "--device-cgroup-rule", RIGHTS),
    ("DeviceRequests", "--gpus", RIGHTS),
    ("Sysctls", "--sysctl", RIGHTS),
    ("Ulimits", "--ulimit", "processes and memory have limits of Quarry's own"),
    ("OomScoreAdj", "--oom-score-adj", RIGHTS),
    ("OomKillDisable", "--oom-kill-disable", RIGHTS),
    ("Runtime", "--runtime", RIGHTS),
    ("CgroupParent", "--cgroup-parent", RIGHTS),
    ("PidMode", "--pid", SPACES),
    ("IpcMode", "--ipc", SPACES),
    ("UTSMode", "--uts", SPACES),
    ("UsernsMode", "--userns", SPACES),
    ("CgroupnsMode", "--cgroupns", SPACES),
    ("NetworkMode", "--network", "a job is on the network of its stack (--label quarry.stack=NAME) and on no other"),
    (
        "NetworkingConfig",
        "--network",
        "a job is on the network of its stack (--label quarry.stack=NAME) and on no other",
    ),
    ("NetworkDisabled", "--network none", "a job is on the network of its stack"),
    ("MacAddress", "--mac-address", "the engine chooses it"),
    ("Hostname", "--hostname", "a job is found by its name"),
    ("Domainname", "--domainname", "a job is found by its name"),
    ("Dns", "--dns", "names are found as on its server"),
    ("DnsOptions", "--dns-option", "names are found as on its server"),
    ("DnsSearch", "--dns-search", "names are found as on its server"),
    ("ExtraHosts", "--add-host", "hand the address over with -e"),
    ("Links", "--link", "containers of one stack find each other by name; start it with --label quarry.stack=NAME"),
    ("VolumesFrom", "--volumes-from", "a volume belongs to one job; name it with -v /path"),
    ("Tmpfs", "--tmpfs", "what is written besides volumes goes with the container"),
    ("ShmSize", "--shm-size", "it is as large as the engine makes it"),
    ("ReadonlyRootfs", "--read-only", "what is written besides volumes goes with the container"),
    ("User", "--user", "it runs as the USER of its image; build one with another USER by git push"),
    ("GroupAdd", "--group-add", "it runs as the USER of its image"),
    ("Healthcheck", "--health-cmd", "describe the job with `health` and start it by: jobs run - < FILE"),
    ("StopSignal", "--stop-signal", "a job is asked to end by SIGTERM"),
    ("LogConfig", "--log-driver", "Quarry keeps the last 30 MB"),
    ("MemoryReservation", "--memory-reservation", SHARES),
    ("MemorySwap", "--memory-swap", "there is no swap beyond -m"),
    ("CpuShares", "--cpu-shares", SHARES),
    ("CpuQuota", "--cpu-quota", SHARES),
    ("CpusetCpus", "--cpuset-cpus", SHARES),
];

/// What of a description a job cannot be, a sentence for each.
pub fn refused(body: &Value) -> Vec<String> {
    let host = &body["HostConfig"];
    let of = |value: &Value, read: &'static [&'static str]| -> Vec<String> {
        let keys = value.as_object().into_iter().flatten();
        keys.filter(|(key, value)| !read.contains(&key.as_str()) && !is_usual(key, value, host))
            .map(|(key, _)| sentence(key))
            .collect()
    };
    let mut all = of(body, &READ);
    all.extend(of(host, &READ_OF_HOST));
    all
}

/// Why one option is refused.
fn sentence(key: &str) -> String {
    match ADVICE.iter().find(|(known, ..)| *known == key) {
        Some((_, option, why)) => format!("{option} is not possible: {why}"),
        None => format!("`{}` is nothing that a job can have; leave it out", key.escape_debug()),
    }
}

fn is_usual(key: &str, value: &Value, host: &Value) -> bool {
    let text = match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let usual = USUAL.iter().find(|(known, _)| *known == key).is_some_and(|(_, usual)| usual.contains(&text.as_str()));
    // Without a limit of its own the swap is as large as docker makes it; Quarry gives none beyond the memory.
    let swap = key == "MemorySwap" && (*value == host["Memory"] || *value == 2 * host["Memory"].as_i64().unwrap_or(0));
    // A network without settings is named all the same.
    if key == "NetworkingConfig" {
        return is_usual_network(value);
    }
    usual || swap || is_empty(value)
}

/// Newer clients name the network that counts anyway.
fn is_usual_network(value: &Value) -> bool {
    let mut ends = value["EndpointsConfig"].as_object().into_iter().flatten();
    ends.all(|(name, settings)| ["default", "bridge"].contains(&name.as_str()) && is_empty(settings))
}

/// Whether nothing is said.
pub fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Bool(true) => false,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(values) => values.is_empty(),
        Value::Object(values) => values.values().all(is_empty),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// What the client of 20.10 sends for `docker run debian true`, as it is.
    const PLAIN: &str = r#"{"Hostname":"","Domainname":"","User":"","AttachStdin":false,"AttachStdout":true,
        "AttachStderr":true,"Tty":false,"OpenStdin":false,"StdinOnce":false,"Env":[],"Cmd":["true"],"Image":"debian",
        "Volumes":{},"WorkingDir":"","Entrypoint":null,"OnBuild":null,"Labels":{},"HostConfig":{"Binds":null,
        "ContainerIDFile":"","LogConfig":{"Type":"","Config":{}},"NetworkMode":"default","PortBindings":{},
        "RestartPolicy":{"Name":"no","MaximumRetryCount":0},"AutoRemove":false,"VolumeDriver":"","VolumesFrom":null,
        "CapAdd":null,"CapDrop":null,"CgroupnsMode":"","Dns":[],"DnsOptions":[],"DnsSearch":[],"ExtraHosts":null,
        "GroupAdd":null,"IpcMode":"","Cgroup":"","Links":null,"OomScoreAdj":0,"PidMode":"","Privileged":false,
        "PublishAllPorts":false,"ReadonlyRootfs":false,"SecurityOpt":null,"UTSMode":"","UsernsMode":"","ShmSize":0,
        "ConsoleSize":[0,0],"Isolation":"","CpuShares":0,"Memory":0,"NanoCpus":0,"CgroupParent":"","BlkioWeight":0,
        "BlkioWeightDevice":[],"BlkioDeviceReadBps":null,"CpuPeriod":0,"CpuQuota":0,"CpusetCpus":"","Devices":[],
        "DeviceCgroupRules":null,"DeviceRequests":null,"KernelMemory":0,"MemoryReservation":0,"MemorySwap":0,
        "MemorySwappiness":-1,"OomKillDisable":false,"PidsLimit":0,"Ulimits":null,"MaskedPaths":null,
        "ReadonlyPaths":null},"NetworkingConfig":{"EndpointsConfig":{}}}"#;

    fn with(place: &str, value: Value) -> Vec<String> {
        let mut body: Value = serde_json::from_str(PLAIN).unwrap();
        *body.pointer_mut(place).unwrap_or_else(|| panic!("{place}")) = value;
        refused(&body)
    }

    #[test]
    fn what_clients_send_anyway_is_taken() {
        assert_eq!(with("/Cmd", json!(["true"])), Vec::<String>::new());
        let newer = json!({"EndpointsConfig": {"default": {"IPAMConfig": null, "Aliases": null, "GwPriority": 0}}});
        assert_eq!(with("/NetworkingConfig", newer), Vec::<String>::new());
        assert_eq!(with("/HostConfig/NetworkMode", json!("bridge")), Vec::<String>::new());
        assert_eq!(with("/HostConfig/OomKillDisable", json!(null)), Vec::<String>::new());
    }

    #[test]
    fn what_a_job_cannot_be_is_refused_by_the_name_of_its_option() {
        let check = |place: &str, value: Value, option: &str| {
            let refused = with(place, value);
            assert!(refused.len() == 1 && refused[0].starts_with(option), "{place}: {refused:?}");
        };
        check("/HostConfig/Privileged", json!(true), "--privileged is not possible: containers get no rights");
        check("/HostConfig/CapAdd", json!(["SYS_ADMIN"]), "--cap-add");
        check("/HostConfig/Devices", json!([{"PathOnHost": "/dev/sda"}]), "--device");
        check("/HostConfig/NetworkMode", json!("host"), "--network");
        check("/HostConfig/NetworkMode", json!("container:x"), "--network");
        check("/HostConfig/PidMode", json!("host"), "--pid");
        check("/HostConfig/IpcMode", json!("host"), "--ipc");
        check("/HostConfig/UsernsMode", json!("host"), "--userns");
        check("/HostConfig/UTSMode", json!("host"), "--uts");
        check("/HostConfig/SecurityOpt", json!(["seccomp=unconfined"]), "--security-opt");
        check("/HostConfig/VolumesFrom", json!(["other"]), "--volumes-from");
        check("/HostConfig/MaskedPaths", json!(["/x"]), "--security-opt");
        check("/HostConfig/PidsLimit", json!(-1), "`PidsLimit`");
        check("/User", json!("nobody"), "--user");
        check("/NetworkingConfig", json!({"EndpointsConfig": {"other": {}}}), "--network");
        check("/NetworkingConfig", json!({"EndpointsConfig": {"default": {"Aliases": ["x"]}}}), "--network");
    }

    #[test]
    fn what_nobody_has_heard_of_is_refused_too() {
        let mut body: Value = serde_json::from_str(PLAIN).unwrap();
        body["HostConfig"]["Brandnew"] = json!({"x": [1]});
        body["Other"] = json!("y");
        assert_eq!(refused(&body).len(), 2);
    }
}
