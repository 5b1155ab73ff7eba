//! The Helm chart: `helm` itself checks and renders it, and the library of Kubernetes' own clients
//! reads the result without unknown fields.

use super::{manifests, run, said, text};
use crate::kit::BINARY;
use crate::kit::authority::Authority;
use serde_json::{Value, json};

const HELM: &str = "target/manifests/helm";
const CHART: &str = "deploy/helm/headwater";

fn template(kind: &str, flags: &[&str]) -> Result<String, String> {
    let values = format!("{CHART}/ci/{kind}-values.yaml");
    let words = ["template", "live", CHART, "--kube-version", "1.31.0", "-f", &values];
    let output = run(HELM, &[&words[..], flags].concat(), "");
    said(&output)?;
    Ok(String::from_utf8(output.stdout).expect("text"))
}

/// The objects that the chart makes of one of its files with values.
pub fn objects(kind: &str) -> Vec<Value> {
    objects_with(kind, &[])
}

fn objects_with(kind: &str, flags: &[&str]) -> Vec<Value> {
    let objects = manifests(&["kubernetes"], &template(kind, flags).unwrap()).unwrap();
    objects.as_array().expect("objects").clone()
}

/// The file of settings of the origins, with the secrets in another directory.
fn settings(objects: &[Value], secrets: &str) -> String {
    let map = objects.iter().find(|object| object["kind"] == "ConfigMap").expect("a map");
    let settings = map["data"]["headwater.toml"].as_str().expect("a file");
    settings.replace("/etc/headwater/secrets/", secrets)
}

fn origins(objects: &[Value]) -> &Value {
    let is_origins =
        |object: &&Value| ["Deployment", "StatefulSet"].iter().any(|kind| object["kind"] == **kind);
    objects.iter().find(is_origins).expect("origins")
}

/// The value of a variable of the origins.
pub fn environment(objects: &[Value], name: &str) -> String {
    let variables = &origins(objects)["spec"]["template"]["spec"]["containers"][0]["env"];
    let mut variables = variables.as_array().expect("variables").iter();
    let variable = variables.find(|variable| variable["name"] == name).expect("it is there");
    variable["value"].as_str().expect("text").to_owned()
}

#[test]
fn helm_accepts_the_chart_and_kubernetes_knows_every_field() {
    for (kind, wanted) in [
        ("redis", &["Deployment", "Service", "Service", "ServiceMonitor"][..]),
        ("disk", &["CronJob", "PersistentVolumeClaim", "Service", "Service", "StatefulSet"]),
    ] {
        let values = format!("{CHART}/ci/{kind}-values.yaml");
        said(&run(HELM, &["lint", "--strict", CHART, "-f", &values], "")).unwrap();
        let objects = objects(kind);
        let mut kinds: Vec<_> = objects.iter().map(|object| text(object, "/kind")).collect();
        kinds.sort_unstable();
        let both = ["ConfigMap", "PodDisruptionBudget"];
        kinds.retain(|kind| !both.contains(kind));
        assert_eq!(kinds, wanted);
    }
    // A field that no such object has is noticed.
    let wrong = template("redis", &[]).unwrap().replace("replicas: 2", "replica: 2");
    let refused = manifests(&["kubernetes"], &wrong).unwrap_err();
    assert!(refused.contains("unknown field \"spec.replica\""), "{refused}");
}

#[test]
fn the_pods_are_unprivileged_and_have_time_to_drain() {
    for (kind, grace) in [("redis", 5 + 75), ("disk", 3 + 40)] {
        let objects = objects(kind);
        let template = &origins(&objects)["spec"]["template"];
        let pod = &template["spec"];
        assert!(pod["terminationGracePeriodSeconds"].as_u64() > Some(grace), "{pod:#}");
        let mut pods = vec![pod];
        pods.extend(
            objects
                .iter()
                .filter_map(|object| object.pointer("/spec/jobTemplate/spec/template/spec")),
        );
        for pod in pods {
            assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
            assert_eq!(pod["automountServiceAccountToken"], false);
            let container = &pod["containers"][0]["securityContext"];
            assert_eq!(container["readOnlyRootFilesystem"], true);
            assert_eq!(container["allowPrivilegeEscalation"], false);
            assert_eq!(container["capabilities"]["drop"][0], "ALL");
        }
        let container = &pod["containers"][0];
        let probe = |name: &str| {
            assert_eq!(container[name]["httpGet"]["port"], "admin");
            text(container, &format!("/{name}/httpGet/path")).to_owned()
        };
        assert_eq!(probe("readinessProbe"), "/readyz");
        assert_eq!([probe("livenessProbe"), probe("startupProbe")], ["/healthz", "/healthz"]);
        // The services and the budget are about these pods, and about no pods of a backup.
        let labels = template["metadata"]["labels"].as_object().expect("labels");
        let mut count = 0;
        for object in &objects {
            let of_service =
                object.pointer("/spec/selector").filter(|_| object["kind"] == "Service");
            let of_budget = object.pointer("/spec/selector/matchLabels");
            let of_budget = of_budget.filter(|_| object["kind"] == "PodDisruptionBudget");
            let Some(selector) = of_service.or(of_budget) else { continue };
            let selector = selector.as_object().expect("a selector");
            assert!(selector.iter().all(|(name, value)| labels.get(name) == Some(value)));
            assert_eq!(selector["app.kubernetes.io/component"], "origin");
            count += 1;
        }
        assert_eq!(count, 3);
    }
}

#[test]
fn the_settings_of_the_chart_are_settings_of_serve() {
    let secrets = tempfile::tempdir().expect("a directory");
    let path = |name: &str| secrets.path().join(name).display().to_string();
    std::fs::write(path("redis-url"), "redis://headwater:secret@redis.example:6379").unwrap();
    std::fs::write(path("token-secret"), "a secret of more than thirty-two bytes").unwrap();
    for kind in ["redis", "disk"] {
        let objects = objects(kind);
        let settings = settings(&objects, &format!("{}/", path("")));
        std::fs::write(path("headwater.toml"), &settings).expect("a file");
        let file = path("headwater.toml");
        let words = ["config", "check", "--config", &file];
        let checked = said(&run(BINARY, &words, "")).unwrap();
        assert!(checked.ends_with("is valid\n"), "{checked}");
        let shown = said(&run(BINARY, &["config", "show", "--config", &file], "")).unwrap();
        let wanted: &[&str] = match kind {
            "redis" => &["lanes = 2", "segment = \"20s\"", "drain-timeout = \"75s\""],
            _ => &["drain = \"now\"", "drain-timeout = \"40s\""],
        };
        for line in wanted {
            assert!(shown.contains(line), "{line} is not in\n{shown}");
        }
    }
}

#[test]
fn redis_with_an_authority_and_a_client_certificate() {
    let authority = Authority::new();
    let (certificate, key) = authority.sign("origin", "basicConstraints=CA:FALSE");
    let secrets = tempfile::tempdir().expect("a directory");
    let path = |name: &str| secrets.path().join(name).display().to_string();
    std::fs::create_dir(path("redis-tls")).expect("a directory");
    for (from, name) in
        [(authority.path("ca.pem"), "ca.crt"), (certificate, "tls.crt"), (key, "tls.key")]
    {
        std::fs::copy(from, path(&format!("redis-tls/{name}"))).expect("a copy");
    }
    std::fs::write(path("redis-url"), "rediss://headwater:secret@redis.example:6379").unwrap();
    std::fs::write(path("token-secret"), "a secret of more than thirty-two bytes").unwrap();
    let set = |ca: &str| {
        let tls = "store.redis.tls";
        format!("{tls}.ca.{ca}=redis-ca,{tls}.ca.key=bundle.pem,{tls}.client.existingSecret=hw-tls")
    };
    for (value, source) in [("existingSecret", "secret"), ("existingConfigMap", "configMap")] {
        let objects = objects_with("redis", &["--set", &set(value)]);
        let pod = &origins(&objects)["spec"]["template"]["spec"];
        let volumes = pod["volumes"].as_array().expect("volumes").iter();
        let sources: Vec<&Value> = volumes
            .filter_map(|volume| volume.pointer("/projected/sources"))
            .flat_map(|sources| sources.as_array().expect("sources"))
            .collect();
        let find = |kind: &str, name: &str| {
            let mut found = sources.iter().map(|one| &one[kind]).filter(|one| one["name"] == name);
            found.next().unwrap_or_else(|| panic!("{kind} {name} in {sources:?}"))
        };
        let item = |key: &str, path: &str| json!({ "key": key, "path": path });
        let of_authority = &find(source, "redis-ca")["items"];
        assert_eq!(*of_authority, json!([item("bundle.pem", "redis-tls/ca.crt")]));
        let of_client = &find("secret", "hw-tls")["items"];
        let files = [("tls.crt", "redis-tls/tls.crt"), ("tls.key", "redis-tls/tls.key")];
        assert_eq!(*of_client, json!(files.map(|(key, path)| item(key, path))));
        // The origin takes the files from where the volume has them.
        let settings = settings(&objects, &format!("{}/", path("")));
        std::fs::write(path("headwater.toml"), &settings).expect("a file");
        let words = ["config", "check", "--config", &path("headwater.toml")];
        said(&run(BINARY, &words, "")).unwrap();
        for name in ["redis-ca", "redis-cert", "redis-key"] {
            assert!(settings.contains(&format!("\n{name} = ")), "{settings}");
        }
    }
    // Without TLS there is nothing of it.
    let objects = objects("redis");
    assert!(!settings(&objects, "").contains("redis-tls"));
}

#[test]
fn values_that_cannot_work_are_refused() {
    for (kind, value, why) in [
        ("redis", "token.existingSecret=", "/token/existingSecret"),
        ("redis", "store.redis.existingSecret=", "/store/redis/existingSecret"),
        ("redis", "backup.enabled=true", "/store/kind"),
        ("redis", "settings.listen=:80", "listen"),
        ("redis", "settings.redis-ca=/ca.pem", "redis-ca"),
        (
            "redis",
            "store.redis.tls.ca.existingSecret=a,store.redis.tls.ca.existingConfigMap=b",
            "/store/redis/tls/ca/existingConfigMap",
        ),
        ("redis", "replica=3", "replica"),
        ("disk", "store.kind=file", "/store/kind"),
        ("disk", "drain.timeoutSeconds=75s", "/drain/timeoutSeconds"),
    ] {
        let refused = template(kind, &["--set", value]).unwrap_err();
        assert!(refused.contains("schema") && refused.contains(why), "{value}: {refused}");
    }
}
