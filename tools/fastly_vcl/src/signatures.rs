//! What each function takes and gives, for the lint. `?` marks arguments that may be left out.
//! A function that is not here is an error, also where falco or Fastly would know it.

use super::values::Type;

pub struct Signature {
    pub arguments: Vec<Type>,
    pub required: usize,
    pub result: Type,
}

/// Those of VCL; those of falco's tests too, when the file is a test.
pub fn find(name: &str, is_test: bool) -> Option<Signature> {
    let known = |table: &'static str| {
        let line = table.lines().find(|line| line.split_whitespace().next() == Some(name))?;
        Some(parsed(line))
    };
    known(FUNCTIONS).or_else(|| if is_test { known(TESTING) } else { None })
}

fn parsed(line: &str) -> Signature {
    let mut words = line.split_whitespace().skip(1);
    let result = Type::named(words.next().expect("a result")).expect("a type");
    let words: Vec<&str> = words.collect();
    let kind = |word: &&str| Type::named(word.trim_start_matches('?')).expect("a type");
    let required = words.iter().filter(|word| !word.starts_with('?')).count();
    Signature { arguments: words.iter().map(kind).collect(), required, result }
}

const FUNCTIONS: &str = "
addr.is_ipv4                    BOOL    IP
addr.is_ipv6                    BOOL    IP
boltsort.sort                   STRING  STRING
cstr_escape                     STRING  STRING
digest.base64                   STRING  STRING
digest.base64_decode            STRING  STRING
digest.base64url                STRING  STRING
digest.base64url_decode         STRING  STRING
digest.base64url_nopad          STRING  STRING
digest.base64url_nopad_decode   STRING  STRING
digest.ecdsa_verify             BOOL    ID STRING STRING STRING ID ?ID
digest.hash_md5                 STRING  STRING
digest.hash_sha1                STRING  STRING
digest.hash_sha256              STRING  STRING
digest.hash_sha384              STRING  STRING
digest.hash_sha512              STRING  STRING
digest.hmac_sha1                STRING  STRING STRING
digest.hmac_sha256              STRING  STRING STRING
digest.hmac_sha256_base64       STRING  STRING STRING
digest.hmac_sha512              STRING  STRING STRING
digest.hmac_sha512_base64       STRING  STRING STRING
digest.rsa_verify               BOOL    ID STRING STRING STRING ?ID
digest.secure_is_equal          BOOL    STRING STRING
http_status_matches             BOOL    INTEGER STRING
json.escape                     STRING  STRING
querystring.add                 STRING  STRING STRING STRING
querystring.clean               STRING  STRING
querystring.filter              STRING  STRING STRING
querystring.filter_except       STRING  STRING STRING
querystring.filtersep           STRING
querystring.get                 STRING  STRING STRING
querystring.regfilter           STRING  STRING STRING
querystring.regfilter_except    STRING  STRING STRING
querystring.remove              STRING  STRING
querystring.set                 STRING  STRING STRING STRING
querystring.sort                STRING  STRING
randombool                      BOOL    INTEGER INTEGER
randomint                       INTEGER INTEGER INTEGER
randomint_seeded                INTEGER INTEGER INTEGER INTEGER
regsub                          STRING  STRING STRING STRING
regsuball                       STRING  STRING STRING STRING
std.atof                        FLOAT   STRING
std.atoi                        INTEGER STRING
std.collect                     VOID    ID ?STRING
std.count                       INTEGER ID
std.integer2time                TIME    INTEGER
std.ip                          IP      STRING STRING
std.itoa                        STRING  INTEGER ?INTEGER
std.prefixof                    BOOL    STRING STRING
std.replace                     STRING  STRING STRING STRING
std.replace_prefix              STRING  STRING STRING STRING
std.replace_suffix              STRING  STRING STRING STRING
std.replaceall                  STRING  STRING STRING STRING
std.str2ip                      IP      STRING STRING
std.strlen                      INTEGER STRING
std.strrep                      STRING  STRING INTEGER
std.strrev                      STRING  STRING
std.strstr                      STRING  STRING STRING
std.strtol                      INTEGER STRING INTEGER
std.suffixof                    BOOL    STRING STRING
std.time                        TIME    STRING TIME
std.tolower                     STRING  STRING
std.toupper                     STRING  STRING
strftime                        STRING  STRING TIME
subfield                        STRING  STRING STRING ?STRING
substr                          STRING  STRING INTEGER ?INTEGER
table.contains                  BOOL    TABLE STRING
table.lookup                    STRING  TABLE STRING ?STRING
table.lookup_bool               BOOL    TABLE STRING BOOL
table.lookup_float              FLOAT   TABLE STRING FLOAT
table.lookup_integer            INTEGER TABLE STRING INTEGER
table.lookup_rtime              RTIME   TABLE STRING RTIME
time.add                        TIME    TIME RTIME
time.is_after                   BOOL    TIME TIME
time.sub                        TIME    TIME RTIME
urldecode                       STRING  STRING
urlencode                       STRING  STRING
";

const TESTING: &str = "
assert                          VOID    ANY ?STRING
assert.contains                 VOID    STRING STRING ?STRING
assert.ends_with                VOID    STRING STRING ?STRING
assert.equal                    VOID    ANY ANY ?STRING
assert.equal_fold               VOID    STRING STRING ?STRING
assert.error                    VOID    INTEGER ?STRING ?STRING
assert.false                    VOID    ANY ?STRING
assert.is_json                  VOID    STRING ?STRING
assert.is_notset                VOID    ANY ?STRING
assert.match                    VOID    STRING STRING ?STRING
assert.not_contains             VOID    STRING STRING ?STRING
assert.not_equal                VOID    ANY ANY ?STRING
assert.not_error                VOID    ?STRING
assert.not_match                VOID    STRING STRING ?STRING
assert.not_restart              VOID    ?STRING
assert.not_state                VOID    ID ?STRING
assert.not_strict_equal         VOID    ANY ANY ?STRING
assert.not_subroutine_called    VOID    STRING ?STRING
assert.restart                  VOID    ?STRING
assert.starts_with              VOID    STRING STRING ?STRING
assert.state                    VOID    ID ?STRING
assert.strict_equal             VOID    ANY ANY ?STRING
assert.subroutine_called        VOID    STRING ?INTEGER ?STRING
assert.true                     VOID    ANY ?STRING
testing.call_subroutine         VOID    STRING
testing.fixed_time              VOID    ANY
testing.inject_variable         VOID    STRING ANY
testing.inspect                 ANY     STRING
testing.mock                    VOID    STRING STRING
testing.override_host           VOID    STRING
testing.restore_all_mocks       VOID
testing.restore_mock            VOID    STRING
testing.table_merge             VOID    TABLE TABLE
testing.table_set               VOID    TABLE STRING STRING
";
