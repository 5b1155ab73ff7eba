//! The programs that publish the lines of their standard input.

use super::program::{Program, within_patience};
use super::relay::Relay;
use super::{Durable, command_with};
use futures_util::future::join_all;
use hyper::Method;

const FILES: [&str; 6] =
    ["publish.sh", "publish.mjs", "publish.py", "publish.go", "publish.rs", "publish.php"];
/// The relay withholds every third answer of the origin.
const WITHHELD: usize = 3;

/// The channel of a program. (`go run` takes an argument that ends with `.go` for a file.)
fn channel(file: &str) -> String {
    file.replace('.', "-")
}

/// Lines with these numbers.
fn numbered(numbers: std::ops::Range<usize>) -> Vec<String> {
    let line = |number| match number {
        // Text that a shell, a query or JSON could change.
        3 => r#"@3 "ü" $HOME \n %41 &a=b+c"#.to_owned(),
        4 => String::new(),
        _ => format!("line {number}"),
    };
    numbers.map(line).collect()
}

#[tokio::test]
async fn publishers_store_each_event_once_and_in_order_whatever_is_withheld_or_killed() {
    let mut durable = Durable::start();
    let mut running = Vec::new();
    for file in FILES {
        let relay = Relay::start(durable.origin.listen).await;
        relay.withhold_every(WITHHELD);
        let url = format!("http://127.0.0.1:{}/channels/{}", relay.port, channel(file));
        running.push((file, Program::start(&command_with(file, &url), &[]), relay));
    }
    for (_, program, _) in &mut running {
        program.write(&numbered(0..6)).await;
    }
    for (file, ..) in &running {
        durable.has(&channel(file), 6).await;
    }
    let (mut programs, mut relays) = (Vec::new(), Vec::new());
    for (file, mut program, relay) in running {
        relays.push(relay);
        program.write(&numbered(6..9)).await;
        programs.push((file, program));
    }
    // Each program meets the outage at least twice.
    let meet = join_all(relays.iter().map(|relay| relay.refuses(2)));
    durable.outage(within_patience("the programs meet the outage", meet)).await;
    for ((file, mut program), relay) in programs.into_iter().zip(&relays) {
        program.write(&numbered(9..12)).await;
        program.close_input();
        let (printed, _) = program.ends().await;
        let log = durable.origin.log(&channel(file)).await;
        let data: Vec<&String> = log.iter().map(|(_, data)| data).collect();
        assert_eq!(data, numbered(0..12).iter().collect::<Vec<_>>(), "{file}");
        // Each line has the id of an event, also where the first answer did not arrive.
        assert_eq!(printed.len(), log.len(), "{file} printed {printed:?}");
        let is_printed = printed.iter().zip(&log).all(|(line, (id, _))| line.contains(id));
        assert!(is_printed, "{file} printed {printed:?}");
        assert!(relay.withheld() > 1, "{file} received every answer");
    }
}

#[tokio::test]
async fn publishers_end_with_an_error_when_an_event_is_refused() {
    let durable = Durable::start();
    durable.origin.publish("ended", "last").await;
    durable.origin.request(Method::DELETE, "/channels/ended", &[], "").await;
    for file in FILES {
        let url = format!("{}/channels/ended", durable.origin.address());
        let mut program = Program::start(&command_with(file, &url), &[]);
        program.write(&numbered(0..1)).await;
        let said = program.fails().await;
        assert!(said.contains("channel-closed"), "{file}: {said}");
    }
    assert_eq!(durable.data("ended").await, ["last"]);
}
