//! An authority of the test's own, which signs certificates.

use std::process::Command;
use tempfile::TempDir;

/// The extension of the certificate of a server on this machine.
pub const LOCAL: &str = "subjectAltName=DNS:localhost,IP:127.0.0.1";

/// The directory has `ca.pem`, and `NAME.pem` and `NAME.key` for each signed certificate.
pub struct Authority(TempDir);

impl Authority {
    pub fn new() -> Self {
        let authority = Self(tempfile::tempdir().expect("a directory"));
        authority.run(
            "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 3 \
               -subj /CN=authority -keyout ca.key -out ca.pem",
            &[],
        );
        authority
    }

    /// Makes and signs a certificate with an extension. Returns the paths of it and of its key.
    pub fn sign(&self, name: &str, extension: &str) -> (String, String) {
        self.run(
            "openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes \
               -subj \"/CN=$1\" -addext \"$2\" -keyout \"$1.key\" -out \"$1.csr\" && \
             openssl x509 -req -in \"$1.csr\" -CA ca.pem -CAkey ca.key -CAcreateserial -days 3 \
               -copy_extensions copy -out \"$1.pem\"",
            &[name, extension],
        );
        (self.path(&format!("{name}.pem")), self.path(&format!("{name}.key")))
    }

    pub fn path(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }

    fn run(&self, script: &str, arguments: &[&str]) {
        let mut command = Command::new("sh");
        command.args(["-c", script, "sh"]).args(arguments).current_dir(self.0.path());
        let output = command.output().expect("sh runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}
