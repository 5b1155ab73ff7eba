# @scope: init
# Decides whether a client may read a private channel. VCL has no JSON parser,
# so the token is parsed with regular expressions. Most of them match valid
# input only, because an expression that exceeds a limit of Fastly matches
# nothing. The exceptions search for a duplicate claim or a claim of a wrong
# type; their cost is bounded by the 4096 characters of a token. No expression
# has lookaheads or back references, because these are what exceeds the limits,
# and falco's tests do not support them.

# Verifies one token: the explicit one, else the first cookie. Any irregularity
# ends the subroutine at once, so that the result stays "unauthorized".
# @scope: recv
sub headwater_token_recv {
  declare local var.hs256 STRING;
  declare local var.rs256 STRING;
  declare local var.edge_auth STRING;
  declare local var.is_configured BOOL;
  declare local var.is_public BOOL;
  declare local var.names STRING;
  declare local var.covers STRING;
  declare local var.all STRING;
  declare local var.kept STRING;
  declare local var.private STRING;
  declare local var.closed STRING;
  declare local var.subject STRING;
  declare local var.before STRING;
  declare local var.granted STRING;
  declare local var.token STRING;
  declare local var.head STRING;
  declare local var.body STRING;
  declare local var.signed STRING;
  declare local var.signature STRING;
  declare local var.header STRING;
  declare local var.payload STRING;
  declare local var.alg STRING;
  declare local var.wanted STRING;
  declare local var.now INTEGER;
  declare local var.time INTEGER;

  set var.before = req.http.Headwater-Access;
  unset req.http.Headwater-Access;
  # After a restart the token is gone. The access that was granted is valid for
  # the same path only.
  set var.granted = "edge " req.url.path;

  # When this file is linted alone, the tables of init.vcl are not visible.
  // falco-ignore-next-line
  set var.hs256 = table.lookup(headwater_secrets, "jwt_hs256_secret", "");
  # RFC 7518 requires 256 bits. With a public key as the secret, every client
  # could sign.
  if (std.strlen(var.hs256) < 32 || var.hs256 ~ "-----BEGIN") {
    set var.hs256 = "";
  }
  // falco-ignore-next-line
  set var.rs256 = table.lookup(headwater_secrets, "jwt_rs256_key", "");
  // falco-ignore-next-line
  set var.edge_auth = table.lookup(headwater_secrets, "edge_auth", "");
  if (var.edge_auth != "" && (var.hs256 != "" || var.rs256 != "")) {
    set var.is_configured = true;
  }

  # The form is ",pattern,pattern,". A list with a syntax error makes every
  # channel private.
  // falco-ignore-next-line
  set var.private = "," table.lookup(headwater, "private", "") ",";
  set var.private = regsuball(var.private, "[ ,]+", ",");
  if (var.private !~ "^,(?:(?:\*|[A-Za-z0-9][A-Za-z0-9._~-]*|[A-Za-z0-9][A-Za-z0-9_~-]*(?:\.[A-Za-z0-9_~-]*){0,7}\.\*),)*$") {
    set var.private = ",*,";
  }

  if (var.private == ",") {
    set var.is_public = true;
  } else {
    # Pairs each name with every pattern that covers it, in the form of a query,
    # because Fastly's query functions can compare names that are not literals.
    # For "a.b" the result is "/?-=-&a.b=a.b&*=a.b&a.*=a.b", with more `*` where
    # a name has no such part. "-" is neither a name nor a pattern: it is first
    # here and last in the list of patterns, so that an incomplete run of the
    # filter can be detected.
    if (req.url.path ~ "^/channels/([^/]+)") {
      set var.names = re.group.1 ",";
    }
    set var.covers = "/?-=-" regsuball(var.names, "([^,]+),", "&\1=\1&*=\1")
      regsuball(var.names, "(((?:[^,.]*\.){1})?[^,]*),", "&\2*=\1")
      regsuball(var.names, "(((?:[^,.]*\.){2})?[^,]*),", "&\2*=\1")
      regsuball(var.names, "(((?:[^,.]*\.){3})?[^,]*),", "&\2*=\1")
      regsuball(var.names, "(((?:[^,.]*\.){4})?[^,]*),", "&\2*=\1")
      regsuball(var.names, "(((?:[^,.]*\.){5})?[^,]*),", "&\2*=\1")
      regsuball(var.names, "(((?:[^,.]*\.){6})?[^,]*),", "&\2*=\1")
      regsuball(var.names, "(((?:[^,.]*\.){7})?[^,]*),", "&\2*=\1")
      regsuball(var.names, "(((?:[^,.]*\.){8})?[^,]*),", "&\2*=\1");
    # A comma remains where a replacement exceeded a limit.
    if (var.covers !~ "^/\?-=-&[^,]+$") {
      set var.covers = "";
    }
    set var.private = regsub(var.private, "^,", "") "-";
    set var.private = std.replaceall(var.private, ",", querystring.filtersep());

    # The channels are public if removing the private patterns removes nothing.
    # Both sides come from the same function, which may write a query in another
    # order.
    set var.kept = querystring.filter(var.covers, var.private);
    set var.all = querystring.filter(var.covers, "-");
    if (var.kept == var.all && var.all != var.covers && var.all ~ "\?.") {
      set var.is_public = true;
    }
  }
  if (var.is_public) {
    if (var.is_configured) {
      unset req.http.Authorization;
    }
    return;
  }

  if (req.restarts > 0 && var.before == var.granted) {
    set req.http.Headwater-Access = var.granted;
    return;
  }

  # Fastly-FF is only a hash of the service's id and could be replayed, so the
  # shield requires the secret too.
  if (fastly.ff.visits_this_service > 0) {
    set var.token = req.http.Headwater-Edge-Auth;
    unset req.http.Headwater-Edge-Auth;
    set req.http.Headwater-Access = "origin";
    if (var.is_configured && digest.secure_is_equal(var.token, var.edge_auth)) {
      set req.http.Headwater-Access = var.granted;
    }
    return;
  }
  if (!var.is_configured) {
    set req.http.Headwater-Access = "origin";
    return;
  }

  # A token in Authorization, else in the query, was chosen for this request and
  # alone decides. Cookies, which browsers add by themselves, count only without
  # such a token.
  std.collect(req.http.Authorization);
  std.collect(req.http.Cookie, "; ");
  set var.subject = "&" req.url.qs "&";
  set var.token = "";
  if (req.http.Authorization ~ "(?i)^bearer +(.+)$") {
    set var.token = re.group.1;
  } elseif (var.subject ~ "&access_token(=[^&]*|)&") {
    set var.token = regsub(re.group.1, "^=", "");
  }
  if (var.token != "") {
    unset req.http.Cookie;
  } else {
    // falco-ignore-next-line
    set var.wanted = "; " table.lookup(headwater, "cookie_name", "headwater") "=";
    set var.subject = "; " req.http.Cookie;
    set var.subject = std.strstr(regsuball(var.subject, "; *", "; "), var.wanted);
    if (var.subject ~ "^; [^=]+=([^; ]+)") {
      set var.token = re.group.1;
    }
    # If a later cookie has the same name, the cookies from there on are kept
    # for a second call.
    set var.subject = std.strstr(regsub(var.subject, "^; ", ""), var.wanted);
    if (var.subject ~ "^; ") {
      set req.http.Cookie = var.subject;
    } else {
      unset req.http.Cookie;
    }
  }
  unset req.http.Authorization;
  set req.http.Headwater-Access = "unauthorized";

  if (std.strlen(var.token) > 4096) {
    return;
  }
  if (var.token ~ "^([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)$") {
    set var.head = re.group.1;
    set var.body = re.group.2;
    set var.signature = re.group.3;
  } else {
    return;
  }
  set var.header = digest.base64url_nopad_decode(var.head);
  set var.payload = digest.base64url_nopad_decode(var.body);
  # Fastly's decoder skips invalid characters and ends a string at NUL, so the
  # decoded text must encode to the same signed text.
  if (digest.base64url_nopad(var.header) != var.head || digest.base64url_nopad(var.payload) != var.body) {
    return;
  }

  # Only these four members are allowed, each once. This excludes `crit` and a
  # key inside the token.
  if (var.header !~ "^\{" || var.header !~ "^(?:(?:^\{|,) *(?:\x22alg\x22 *: *\x22(?:HS256|RS256)\x22|\x22typ\x22 *: *\x22(?i:(?:application/)?(?:at\+)?jwt)\x22|\x22(?:kid|x5t)\x22 *: *\x22[^\x22\\\x00-\x1f]*\x22) *)+\}\z") {
    return;
  }
  if (var.header ~ "(?:\x22alg\x22 *:.*){2}|(?:\x22typ\x22 *:.*){2}|(?:\x22kid\x22 *:.*){2}|(?:\x22x5t\x22 *:.*){2}") {
    return;
  }
  if (var.header ~ "\x22alg\x22 *: *\x22(HS256|RS256)\x22") {
    set var.alg = re.group.1;
  } else {
    return;
  }

  # The algorithm selects the key, so that no key is ever used for the other
  # algorithm.
  set var.signed = var.head "." var.body;
  if (var.alg == "HS256" && var.hs256 != "") {
    set var.wanted = digest.hmac_sha256_base64(var.hs256, var.signed);
    set var.wanted = regsuball(var.wanted, "\+", "-");
    set var.wanted = regsuball(var.wanted, "/", "_");
    set var.wanted = regsuball(var.wanted, "=", "");
    if (!digest.secure_is_equal(var.signature, var.wanted)) {
      return;
    }
  } elseif (var.alg == "RS256" && var.rs256 != "") {
    # The lengths of 2048, 3072 and 4096 bits; the unused bits of the last
    # character must be 0.
    if (var.signature !~ "^(?:[A-Za-z0-9_-]{341}[AQgw]|[A-Za-z0-9_-]{512}|[A-Za-z0-9_-]{682}[AEIMQUYcgkosw048])$") {
      return;
    }
    if (!digest.rsa_verify(sha256, var.rs256, var.signed, var.signature, url_nopad)) {
      return;
    }
  } else {
    return;
  }

  # The payload must be a flat object with plain names, whose values are
  # strings, numbers, words, and lists of strings and numbers. In such a text,
  # `"exp":` can only be a member, never part of a string.
  if (var.payload !~ "^\{" || var.payload !~ "^(?:(?:^\{|,) *\x22[A-Za-z0-9_][A-Za-z0-9_.:/#-]*\x22 *: *(?:\x22[^\x22\\\x00-\x1f]*(?:\\[\x22\\/bfnrtu][^\x22\\\x00-\x1f]*)*\x22|-?[0-9][0-9.eE+-]*|true|false|null|\[ *(?:(?:\x22[^\x22\\\x00-\x1f]*(?:\\[\x22\\/bfnrtu][^\x22\\\x00-\x1f]*)*\x22|-?[0-9][0-9.eE+-]*)(?: *, *(?:\x22[^\x22\\\x00-\x1f]*(?:\\[\x22\\/bfnrtu][^\x22\\\x00-\x1f]*)*\x22|-?[0-9][0-9.eE+-]*))*)? *\]) *)+\}\z") {
    return;
  }
  # No claim that is used below may occur twice.
  if (var.payload ~ "(?:\x22exp\x22 *:.*){2}|(?:\x22nbf\x22 *:.*){2}|(?:\x22iss\x22 *:.*){2}|(?:\x22aud\x22 *:.*){2}|(?:\x22sub\x22 *:.*){2}|(?:\x22scope\x22 *:.*){2}") {
    return;
  }

  # `sub` is a string, and `scope` is a string or a list of strings. A value of another
  # type is a mistake of the issuer, and the origin refuses such a token too.
  if (var.payload ~ "\x22sub\x22 *:" && var.payload !~ "\x22sub\x22 *: *(?:\x22|null)") {
    return;
  }
  if (var.payload ~ "\x22scope\x22 *:" && var.payload !~ "\x22scope\x22 *: *(?:\x22|null|\[ *(?:\x22[^\x22\\]*(?:\\.[^\x22\\]*)*\x22(?: *, *\x22[^\x22\\]*(?:\\.[^\x22\\]*)*\x22)*)? *\])") {
    return;
  }

  // falco-ignore-next-line
  set var.wanted = table.lookup(headwater, "jwt_issuer", "");
  if (var.wanted != "") {
    set var.subject = "";
    if (var.payload ~ "\x22iss\x22 *: *\x22([^\x22\\]*)\x22") {
      set var.subject = re.group.1;
    }
    if (var.subject != var.wanted) {
      return;
    }
  }
  // falco-ignore-next-line
  set var.wanted = table.lookup(headwater, "jwt_audience", "");
  if (var.wanted != "") {
    if (var.payload ~ "\x22aud\x22 *: *(\x22[^\x22\\<>]*\x22|\[[^\]\\<>]*\])") {
      # The form is "<one><two>", or "<one>" for a single audience.
      set var.subject = regsuball(re.group.1, "[^\x22]*\x22([^\x22]*)\x22", "<\1>");
    } else {
      return;
    }
    set var.wanted = "<" var.wanted ">";
    set var.subject = std.strstr(var.subject, var.wanted);
    if (var.subject !~ "^<" || var.wanted !~ "^<[^<>]+>$") {
      return;
    }
  }

  set var.now = std.atoi(now.sec);
  if (var.payload ~ "\x22nbf\x22 *: *([1-9][0-9]{0,10}) *[,}]") {
    set var.time = std.atoi(re.group.1);
    set var.time -= 30;
    if (var.now < var.time) {
      return;
    }
  } elseif (var.payload ~ "\x22nbf\x22 *:") {
    return;
  }
  if (var.payload ~ "\x22exp\x22 *: *([1-9][0-9]{0,10}) *[,}]") {
    set var.time = std.atoi(re.group.1);
    set var.time += 30;
  } else {
    return;
  }

  # The scope must cover every private name of the request.
  set req.http.Headwater-Access = "forbidden";
  if (var.payload ~ "\x22scope\x22 *: *\x22([^\x22\\]*)\x22") {
    set var.subject = re.group.1 " ";
  } elseif (var.payload ~ "\x22scope\x22 *: *\[ *(\x22[^\x22\\]*\x22(?: *, *\x22[^\x22\\]*\x22)*) *\]") {
    # Joins the words of all strings in the list. A remaining quote is refused
    # below.
    set var.subject = regsuball(re.group.1, "\x22([^\x22]*)\x22[ ,]*", "\1 ");
  } else {
    return;
  }
  # Keeps the subscribe patterns as "pattern,pattern", and drops words that
  # grant anything else.
  set var.subject = regsuball(var.subject, "subscribe:(\*|[A-Za-z0-9][A-Za-z0-9._~-]*(?:\.\*)?) |[^ ]* ", ",\1");
  if (var.subject !~ "^[A-Za-z0-9._~*,-]*$") {
    return;
  }
  set var.subject = regsuball(var.subject, "^,+|,+(,)", "\1");
  set var.subject = std.replaceall(var.subject, ",", querystring.filtersep());
  # Reduces both to names: "name<separator>name" for the granted names, and
  # "/?name&name" for the private ones.
  set var.subject = querystring.filter_except(var.covers, var.subject);
  set var.subject = regsuball(var.subject, "^/\?|[^?&=]+=", "");
  set var.subject = std.replaceall(var.subject, "&", querystring.filtersep());
  set var.closed = querystring.filter_except(var.covers, var.private);
  set var.closed = regsuball(var.closed, "[^?&=]+=", "");
  set var.kept = querystring.filter_except(var.closed, var.subject);
  set var.all = querystring.filter(var.closed, "-");
  if (var.kept !~ "\?." || var.kept != var.all || var.all == var.closed) {
    return;
  }

  # The expiry is checked last, because "expired" makes the client reconnect
  # with a new token: the token must be valid otherwise.
  if (var.now >= var.time) {
    set req.http.Headwater-Access = "expired";
    return;
  }
  set req.http.Headwater-Access = var.granted;
}

# A browser sends every cookie of the name whose path and domain match the
# request, and any of them may hold the valid token. VCL has no loops, so the
# first two are tried and further ones are ignored.
# @scope: recv
sub headwater_private_recv {
  declare local var.first STRING;

  call headwater_token_recv;
  if (req.http.Cookie && req.http.Headwater-Access ~ "^(?:unauthorized|forbidden|expired)$") {
    set var.first = req.http.Headwater-Access;
    call headwater_token_recv;
    # If both are refused, the first decides the response, except that an
    # expired one takes precedence, so that the client reconnects with a newer
    # token.
    if (req.http.Headwater-Access == "unauthorized" || req.http.Headwater-Access == "forbidden") {
      set req.http.Headwater-Access = var.first;
    }
  }
}
