//! An example that runs, with its input and its output.

use crate::kit::{BINARY, PATIENCE};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::watch;

/// A program with all processes that it starts. They are killed when the value is dropped.
pub struct Program {
    command: String,
    child: Child,
    input: Option<ChildStdin>,
    output: watch::Receiver<Vec<String>>,
    errors: watch::Receiver<Vec<String>>,
}

impl Program {
    /// Runs a command of README.md with these variables.
    pub fn start(command: &str, variables: &[(&str, String)]) -> Self {
        Self::start_in(Path::new("."), command, variables)
    }

    /// As `start`, in another directory than the root of the repository.
    pub fn start_in(directory: &Path, command: &str, variables: &[(&str, String)]) -> Self {
        let command = with_built_examples(command);
        let mut bash = Command::new("bash");
        bash.args(["-c", &command]).current_dir(directory);
        // The Python for which `tests/run` installs packages.
        let python = std::env::current_dir().expect("a directory").join("target/python/bin");
        let path = std::env::var("PATH").unwrap_or_default();
        bash.env("PATH", format!("{}:{path}", python.display())).envs(variables.iter().cloned());
        bash.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let mut child = bash.spawn().expect("bash runs");
        let output = lines(child.stdout.take().expect("standard output is piped"));
        let errors = lines(child.stderr.take().expect("standard error is piped"));
        println!("{command}");
        let input = child.stdin.take();
        Self { command, child, input, output, errors }
    }

    /// Writes lines to the standard input.
    pub async fn write(&mut self, lines: &[String]) {
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        let input = self.input.as_mut().expect("the standard input is open");
        input
            .write_all(text.as_bytes())
            .await
            .unwrap_or_else(|error| panic!("{error}: {}", self.report()));
    }

    /// Ends the standard input.
    pub fn close_input(&mut self) {
        self.input = None;
    }

    /// Waits until the standard output has enough, and returns its lines.
    pub async fn until(&mut self, enough: impl Fn(&[String]) -> bool) -> Vec<String> {
        let mut output = self.output.clone();
        self.wait(&mut output, enough).await
    }

    /// As `until`, for the standard error.
    pub async fn until_error(&mut self, enough: impl Fn(&[String]) -> bool) -> Vec<String> {
        let mut errors = self.errors.clone();
        self.wait(&mut errors, enough).await
    }

    async fn wait(
        &self,
        lines: &mut watch::Receiver<Vec<String>>,
        enough: impl Fn(&[String]) -> bool,
    ) -> Vec<String> {
        // One of the readers notices a silent connection only after 45 s.
        let waited = lines.wait_for(|lines| enough(lines));
        match tokio::time::timeout(4 * PATIENCE, waited).await {
            Ok(Ok(lines)) => lines.clone(),
            _ => panic!("too little came: {}", self.report()),
        }
    }

    /// Waits until the program ends by itself without an error, and returns the lines of its
    /// standard output and its standard error.
    pub async fn ends(mut self) -> (Vec<String>, Vec<String>) {
        assert!(self.is_successful().await, "{}", self.report());
        (self.output.borrow().clone(), self.errors.borrow().clone())
    }

    /// Waits until the program ends by itself with an error, and returns what it has written.
    pub async fn fails(mut self) -> String {
        assert!(!self.is_successful().await, "{}", self.report());
        self.report()
    }

    /// Waits for the end, and returns whether the exit status is that of a success.
    async fn is_successful(&mut self) -> bool {
        let status = tokio::time::timeout(3 * PATIENCE, self.child.wait()).await;
        let status = status.unwrap_or_else(|_| panic!("it does not end: {}", self.report()));
        // The output ends with the program, possibly a moment later. The wait fails then.
        self.output.wait_for(|_| false).await.ok();
        self.errors.wait_for(|_| false).await.ok();
        status.expect("a child").success()
    }

    /// Sends a signal to all processes of the program.
    pub fn signal(&self, name: &str) {
        if let Some(pid) = self.child.id() {
            let words = [format!("-{name}"), "--".to_owned(), format!("-{pid}")];
            std::process::Command::new("kill").args(words).status().expect("kill runs");
        }
    }

    fn report(&self) -> String {
        let (output, errors) = (self.output.borrow(), self.errors.borrow());
        format!("{}\n{}\n{}", self.command, output.join("\n"), errors.join("\n"))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.signal("KILL");
    }
}

/// The lines of a stream as they arrive. They are also copied to the output of the test.
fn lines(from: impl AsyncRead + Unpin + Send + 'static) -> watch::Receiver<Vec<String>> {
    let (send, receive) = watch::channel(Vec::new());
    tokio::spawn(async move {
        let mut lines = BufReader::new(from).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            println!("{line}");
            send.send_modify(|lines: &mut Vec<String>| lines.push(line));
        }
    });
    receive
}

/// Cargo has built the examples together with the tests, so a test does not call it.
fn with_built_examples(command: &str) -> String {
    let Some(rest) = command.strip_prefix("cargo run --example ") else {
        return command.to_owned();
    };
    let (name, rest) = rest.split_once(" -- ").expect("arguments");
    let path: PathBuf =
        Path::new(BINARY).parent().expect("a directory").join("examples").join(name);
    assert!(path.exists(), "{} is missing: run cargo build --examples", path.display());
    format!("{} {rest}", path.display())
}

/// Waits for something that the programs do, with pauses of up to ten seconds.
pub async fn within_patience<T>(what: &str, it: impl Future<Output = T>) {
    let in_time = tokio::time::timeout(2 * PATIENCE, it).await;
    assert!(in_time.is_ok(), "{what}");
}
