//! The predefined variables: type, where each may be read, where it may be set, and what it holds
//! when nobody has said otherwise. From Fastly's variable reference; the ones left out are errors.
//!
//! Places are letters: r(ecv) h(ash) i (hit) m(iss) p(ass) f(etch) e(rror) d(eliver) l(og), `*` all,
//! `-` none.

use super::values::{Type, Value};

pub const SCOPES: [(&str, char); 9] = [
    ("recv", 'r'),
    ("hash", 'h'),
    ("hit", 'i'),
    ("miss", 'm'),
    ("pass", 'p'),
    ("fetch", 'f'),
    ("error", 'e'),
    ("deliver", 'd'),
    ("log", 'l'),
];

pub struct Variable {
    pub kind: Type,
    read: &'static str,
    set: &'static str,
    pub can_be_unset: bool,
    default: &'static str,
}

impl Variable {
    pub fn may_be_read(&self, scope: &str) -> bool {
        includes(self.read, scope)
    }

    pub fn may_be_set(&self, scope: &str) -> bool {
        includes(self.set, scope)
    }

    pub fn default(&self) -> Value {
        match (self.kind, self.default) {
            (kind, "") => kind.blank(),
            (Type::Text, text) => Value::text(text.trim_matches('\'')),
            (Type::Integer, text) => Value::Integer(text.parse().expect("a number")),
            (Type::Bool, text) => Value::Bool(text == "true"),
            (Type::Address, text) => Value::Address(Some(text.parse().expect("an address"))),
            (Type::Span, text) => {
                Value::Span(text.parse::<i64>().expect("seconds") * 1_000_000_000)
            }
            (kind, text) => panic!("{} has no default {text}", kind.name()),
        }
    }
}

fn includes(places: &str, scope: &str) -> bool {
    let letter = SCOPES.iter().find(|(name, _)| *name == scope).map(|(_, letter)| *letter);
    places == "*" || letter.is_some_and(|letter| places.contains(letter))
}

/// The variable of that name, headers included.
pub fn find(name: &str) -> Option<Variable> {
    if let Some((object, _)) = super::headers::split(name) {
        let (_, places) = HEADERS.iter().find(|(known, _)| *known == object)?;
        // vcl_fetch may set bereq.http.*, but the request is gone by then, so it is a mistake.
        let set = if object == "bereq" { "mp" } else { places };
        let kind = Type::Text;
        return Some(Variable { kind, read: places, set, can_be_unset: true, default: "" });
    }
    let line = TABLE.lines().find(|line| line.split_whitespace().next() == Some(name))?;
    let mut columns = line.split_whitespace().skip(1);
    let kind = Type::named(columns.next()?).expect("a type");
    let read = columns.next().expect("where it is read");
    let set = columns.next().expect("where it is set");
    let default = columns.next().unwrap_or_default();
    let can_be_unset = name == "fastly.error";
    Some(Variable { kind, read, set, can_be_unset, default })
}

const HEADERS: [(&str, &str); 5] =
    [("req", "*"), ("bereq", "mpf"), ("beresp", "f"), ("obj", "ie"), ("resp", "dl")];

const TABLE: &str = "
req.url                         STRING  *     *     /
req.url.path                    STRING  *     -
req.url.qs                      STRING  *     -
req.url.basename                STRING  *     -
req.url.dirname                 STRING  *     -
req.url.ext                     STRING  *     -
req.method                      STRING  *     *     GET
req.request                     STRING  *     *
req.proto                       STRING  *     -     HTTP/1.1
req.protocol                    STRING  *     -     https
req.is_ssl                      BOOL    *     -     true
req.is_ipv6                     BOOL    rhdl  -
req.is_purge                    BOOL    rhdl  -
req.is_background_fetch         BOOL    *     -
req.is_clustering               BOOL    *     -
req.is_esi_subreq               BOOL    *     -
req.esi                         BOOL    rfed  rfed  true
req.esi_level                   INTEGER rd    -
req.topurl                      STRING  *     -
req.body                        STRING  *     -
req.body.base64                 STRING  *     -
req.postbody                    STRING  *     -
req.body_bytes_read             INTEGER dl    -
req.bytes_read                  INTEGER dl    -
req.header_bytes_read           INTEGER *     -
req.backend                     BACKEND *     *
req.backend.healthy             BOOL    *     -     true
req.backend.is_origin           BOOL    mpf   -     true
req.backend.is_shield           BOOL    *     -
req.backend.ip                  IP      edl   -
req.backend.name                STRING  edl   -
req.backend.port                INTEGER edl   -
req.digest                      STRING  *     -
req.digest.ratio                FLOAT   *     -
req.enable_range_on_pass        BOOL    r     r
req.enable_segmented_caching    BOOL    r     r
req.grace                       RTIME   *     *
req.hash                        STRING  he    he    ''
req.hash_always_miss            BOOL    r     r
req.hash_ignore_busy            BOOL    r     r
req.max_stale_if_error          RTIME   *     *
req.max_stale_while_revalidate  RTIME   *     *
req.restarts                    INTEGER *     -
req.xid                         STRING  *     -     1
req.service_id                  STRING  *     -     service
req.customer_id                 STRING  *     -     customer
req.vcl                         STRING  *     -
req.vcl.version                 INTEGER *     -     1
req.vcl.generation              INTEGER *     -     1
req.vcl.md5                     STRING  *     -
bereq.url                       STRING  mpf   mp    /
bereq.url.path                  STRING  mpf   -
bereq.url.qs                    STRING  mpf   -
bereq.url.basename              STRING  mpf   -
bereq.url.dirname               STRING  mpf   -
bereq.url.ext                   STRING  mpf   -
bereq.method                    STRING  mpf   mp    GET
bereq.request                   STRING  mpf   mp
bereq.proto                     STRING  mpf   -     HTTP/1.1
bereq.is_clustering             BOOL    *     -
bereq.connect_timeout           RTIME   mp    mp    1
bereq.first_byte_timeout        RTIME   mp    mp    15
bereq.between_bytes_timeout     RTIME   mp    mp    10
bereq.fetch_timeout             RTIME   mp    mp
bereq.max_reuse_idle_time       RTIME   mp    mp
bereq.body_bytes_written        INTEGER fdl   -
bereq.bytes_written             INTEGER fdl   -
bereq.header_bytes_written      INTEGER fdl   -
beresp.status                   INTEGER f     f     200
beresp.response                 STRING  f     f     OK
beresp.proto                    STRING  f     -     HTTP/1.1
beresp.ttl                      RTIME   f     f     120
beresp.grace                    RTIME   f     f
beresp.stale_while_revalidate   RTIME   f     f
beresp.stale_if_error           RTIME   f     f
beresp.saintmode                RTIME   -     f
beresp.cacheable                BOOL    f     f     true
beresp.do_stream                BOOL    f     f
beresp.do_esi                   BOOL    f     f
beresp.gzip                     BOOL    f     f
beresp.brotli                   BOOL    f     f
beresp.pci                      BOOL    f     f
beresp.hipaa                    BOOL    f     f
beresp.backend.name             STRING  f     -
beresp.backend.ip               IP      f     -
beresp.backend.port             INTEGER f     -
beresp.backend.requests         INTEGER f     -     1
beresp.backend.src_ip           IP      *     -
beresp.backend.alternate_ips    STRING  f     -
beresp.handshake_time_to_origin_ms INTEGER f  -
beresp.used_alternate_path_to_origin BOOL f   -
backend.conn.is_tls             BOOL    f     -
backend.conn.tls_protocol       STRING  f     -
obj.status                      INTEGER ie    ie    200
obj.response                    STRING  ie    ie    OK
obj.proto                       STRING  ie    -     HTTP/1.1
obj.ttl                         RTIME   iel   iel
obj.grace                       RTIME   iel   iel
obj.stale_while_revalidate      RTIME   iel   -
obj.stale_if_error              RTIME   iel   -
obj.age                         RTIME   idel  -
obj.entered                     RTIME   idel  -
obj.lastuse                     RTIME   idel  -
obj.hits                        INTEGER idl   -
obj.cacheable                   BOOL    i     -     true
obj.is_pci                      BOOL    idel  -
resp.status                     INTEGER dl    dl    200
resp.response                   STRING  dl    dl    OK
resp.proto                      STRING  dl    -     HTTP/1.1
resp.is_locally_generated       BOOL    dl    -
resp.stale                      BOOL    *     *
resp.stale.is_error             BOOL    *     *
resp.stale.is_revalidating      BOOL    *     *
resp.completed                  BOOL    l     -
resp.body_bytes_written         INTEGER l     -
resp.bytes_written              INTEGER l     -
resp.header_bytes_written       INTEGER l     -
stale.exists                    BOOL    *     -
esi.allow_inside_cdata          BOOL    rfed  rfed
client.ip                       IP      *     -     192.0.2.1
client.port                     INTEGER *     -     50000
client.requests                 INTEGER *     -     1
client.identity                 STRING  *     *
client.as.name                  STRING  *     -
client.as.number                INTEGER *     -
client.bot.name                 STRING  *     -
client.browser.name             STRING  *     -
client.browser.version          STRING  *     -
client.class.bot                BOOL    *     -
client.class.browser            BOOL    *     -
client.os.name                  STRING  *     -
client.os.version               STRING  *     -
client.platform.mobile          BOOL    *     -
client.platform.tablet          BOOL    *     -
client.sess_timeout             RTIME   *     *
client.socket.congestion_algorithm STRING redl redl
client.socket.cwnd              INTEGER refdl redl  60
client.socket.nexthop           IP      redl  -
client.socket.pace              INTEGER redl  redl
client.socket.ploss             FLOAT   redl  -
client.socket.tcp_info          BOOL    redl  -
client.socket.tcpi_rtt          INTEGER redl  -
client.geo.city                 STRING  *     -
client.geo.conn_speed           STRING  *     -
client.geo.conn_type            STRING  *     -
client.geo.continent_code       STRING  *     -
client.geo.country_code         STRING  *     -
client.geo.country_code3        STRING  *     -
client.geo.country_name         STRING  *     -
client.geo.ip_override          STRING  *     *
client.geo.latitude             FLOAT   *     -
client.geo.longitude            FLOAT   *     -
client.geo.region               STRING  *     -
client.geo.utc_offset           INTEGER *     -
server.billing_region           STRING  *     -
server.datacenter               STRING  *     -     TST
server.hostname                 STRING  *     -     cache-tst1
server.identity                 STRING  *     -     cache-tst1-TST
server.ip                       IP      *     -
server.pop                      STRING  *     -     TST
server.port                     INTEGER *     -     443
server.region                   STRING  *     -
fastly.error                    STRING  *     -
fastly.ff.visits_this_pop       INTEGER *     -     1
fastly.ff.visits_this_pop_this_service INTEGER m -
fastly.ff.visits_this_service   INTEGER *     -
fastly.is_staging               BOOL    *     -
fastly_info.state               STRING  *     -     NONE
fastly_info.is_cluster_edge     BOOL    d     -
fastly_info.is_cluster_shield   BOOL    mf    -
fastly_info.request_id          STRING  rhdl  -
fastly_info.host_header         STRING  *     -
fastly_info.edge.is_tls         BOOL    *     -     true
fastly_info.is_h2               BOOL    *     -
fastly_info.is_h3               BOOL    *     -
fastly_info.h2.is_push          BOOL    rhdl  -
fastly_info.h2.stream_id        INTEGER rhdl  -
tls.client.cipher               STRING  rhdl  -
tls.client.protocol             STRING  rhdl  -
tls.client.servername           STRING  rhdl  -
tls.client.ja3_md5              STRING  rhdl  -
tls.client.ja4                  STRING  rhdl  -
transport.type                  STRING  rhdl  -     tcp
workspace.bytes_free            INTEGER *     -     125008
workspace.bytes_total           INTEGER *     -     139392
workspace.overflowed            BOOL    *     -
segmented_caching.block_size    INTEGER rl    r
now                             TIME    *     -
now.sec                         STRING  *     -
time.start                      TIME    *     -
time.start.sec                  STRING  *     -
time.start.msec                 STRING  *     -
time.start.usec_frac            STRING  *     -
time.end                        TIME    dl    -
time.elapsed                    RTIME   *     -
time.elapsed.msec               STRING  *     -
time.elapsed.sec                STRING  *     -
time.elapsed.usec               STRING  *     -
time.to_first_byte              RTIME   dl    -
LF                              STRING  *     -
";
