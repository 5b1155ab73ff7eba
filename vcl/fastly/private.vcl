# @scope: init
# Who may read a private channel. JSON has no parser in VCL, so it is read by
# regular expressions. Each matches what is good, because an expression that runs
# into a limit of Fastly's matches nothing. The exceptions find a claim that is
# there twice or has a wrong type; their work is bounded by the 4096 letters. None
# has lookaheads or back references: those are what runs into limits, and falco's
# tests do not know them.

# Judges one token: the explicit one, else the first cookie. Whatever is odd ends
# the subroutine at once, so that the verdict stays "unauthorized".
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
  # A restart has no token any more. What it was granted counts for that path alone.
  set var.granted = "edge " req.url.path;

  # Linted alone, this file cannot see the tables of init.vcl.
  // falco-ignore-next-line
  set var.hs256 = table.lookup(headwater_secrets, "jwt_hs256_secret", "");
  # RFC 7518 wants 256 bits. A public key here would let everyone sign.
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

  # ",pattern,pattern,". A list with a slip in it makes everything private.
  // falco-ignore-next-line
  set var.private = "," table.lookup(headwater, "private", "") ",";
  set var.private = regsuball(var.private, "[ ,]+", ",");
  if (var.private !~ "^,(?:(?:\*|[A-Za-z0-9][A-Za-z0-9._~-]*|[A-Za-z0-9][A-Za-z0-9_~-]*(?:\.[A-Za-z0-9_~-]*){0,7}\.\*),)*$") {
    set var.private = ",*,";
  }

  if (var.private == ",") {
    set var.is_public = true;
  } else {
    # Each pattern that covers a name, beside the name, so that Fastly's functions
    # for queries can compare: they take names that are not literals. Of "a.b"
    # it is "/?-=-&a.b=a.b&*=a.b&a.*=a.b", with more `*` where a name has no such
    # part. "-" is no name and no pattern: it stands first here and last in the
    # list of patterns, so that a filter that did nothing, or not all, can be told.
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
    # A comma is left where a replacement ran into a limit.
    if (var.covers !~ "^/\?-=-&[^,]+$") {
      set var.covers = "";
    }
    set var.private = regsub(var.private, "^,", "") "-";
    set var.private = std.replaceall(var.private, ",", querystring.filtersep());

    # Public, if without what is private nothing is missing. Both sides come out
    # of the same function, which may write a query in another order.
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

  # Fastly-FF only hashes the service's id and so might be replayed: the shield
  # wants the secret too.
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

  # A token in Authorization, else one in the query, was chosen for this request and
  # decides alone. Only without one do cookies count, which browsers add by themselves.
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
    # The cookies behind it stay if one of them has the name too, for a second call.
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
  # Fastly skips what is not base64 and ends a string at NUL. What was read must
  # be all that was signed.
  if (digest.base64url_nopad(var.header) != var.head || digest.base64url_nopad(var.payload) != var.body) {
    return;
  }

  # Nothing but these four, so no `crit` and no key of the token's own; each once.
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

  # The algorithm chooses the key, so that neither key is ever used for the other.
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
    # 2048, 3072 and 4096 bits, with nothing in the bits that stand for no byte.
    if (var.signature !~ "^(?:[A-Za-z0-9_-]{341}[AQgw]|[A-Za-z0-9_-]{512}|[A-Za-z0-9_-]{682}[AEIMQUYcgkosw048])$") {
      return;
    }
    if (!digest.rsa_verify(sha256, var.rs256, var.signed, var.signature, url_nopad)) {
      return;
    }
  } else {
    return;
  }

  # A flat object: plain names; strings, numbers, words, and lists of the first
  # two. In such a text `"exp":` can only be a member, never part of a string.
  if (var.payload !~ "^\{" || var.payload !~ "^(?:(?:^\{|,) *\x22[A-Za-z0-9_][A-Za-z0-9_.:/#-]*\x22 *: *(?:\x22[^\x22\\\x00-\x1f]*(?:\\[\x22\\/bfnrtu][^\x22\\\x00-\x1f]*)*\x22|-?[0-9][0-9.eE+-]*|true|false|null|\[ *(?:(?:\x22[^\x22\\\x00-\x1f]*(?:\\[\x22\\/bfnrtu][^\x22\\\x00-\x1f]*)*\x22|-?[0-9][0-9.eE+-]*)(?: *, *(?:\x22[^\x22\\\x00-\x1f]*(?:\\[\x22\\/bfnrtu][^\x22\\\x00-\x1f]*)*\x22|-?[0-9][0-9.eE+-]*))*)? *\]) *)+\}\z") {
    return;
  }
  # Of what is read below, nothing is there twice.
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
      # "<one><two>", also where it is the only one.
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

  # Every name that is private must be covered by the scope too.
  set req.http.Headwater-Access = "forbidden";
  if (var.payload ~ "\x22scope\x22 *: *\x22([^\x22\\]*)\x22") {
    set var.subject = re.group.1 " ";
  } elseif (var.payload ~ "\x22scope\x22 *: *\[ *(\x22[^\x22\\]*\x22(?: *, *\x22[^\x22\\]*\x22)*) *\]") {
    # The words of all strings of the list. A quote that is left here is refused below.
    set var.subject = regsuball(re.group.1, "\x22([^\x22]*)\x22[ ,]*", "\1 ");
  } else {
    return;
  }
  # "pattern,pattern", with nothing of a word that grants something else.
  set var.subject = regsuball(var.subject, "subscribe:(\*|[A-Za-z0-9][A-Za-z0-9._~-]*(?:\.\*)?) |[^ ]* ", ",\1");
  if (var.subject !~ "^[A-Za-z0-9._~*,-]*$") {
    return;
  }
  set var.subject = regsuball(var.subject, "^,+|,+(,)", "\1");
  set var.subject = std.replaceall(var.subject, ",", querystring.filtersep());
  # Then the names alone: "name<separator>name" of what is granted, and
  # "/?name&name" of what is private.
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

  # Last, as "expired" asks the client to come back with a new token: that must
  # be all that is wrong.
  if (var.now >= var.time) {
    set req.http.Headwater-Access = "expired";
    return;
  }
  set req.http.Headwater-Access = var.granted;
}

# A browser sends every cookie of the name whose path and domain fit the request,
# and any of them may hold the token that is valid now. VCL has no loops, so the
# first two are tried and the others are not read.
# @scope: recv
sub headwater_private_recv {
  declare local var.first STRING;

  call headwater_token_recv;
  if (req.http.Cookie && req.http.Headwater-Access ~ "^(?:unauthorized|forbidden|expired)$") {
    set var.first = req.http.Headwater-Access;
    call headwater_token_recv;
    # If both are refused, the first decides the answer; but if one of them has expired,
    # the client shall come back with a newer one.
    if (req.http.Headwater-Access == "unauthorized" || req.http.Headwater-Access == "forbidden") {
      set req.http.Headwater-Access = var.first;
    }
  }
}
