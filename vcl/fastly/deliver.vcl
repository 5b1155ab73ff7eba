# @scope: deliver
# Says in the standard header (RFC 9211) what the cache did, so that a check of
# the collapsing needs nothing but curl. Only the edge speaks; a shield's word
# would be stored with the object and repeated to everyone.

declare local var.headwater_status STRING;

if (fastly.ff.visits_this_service == 0) {
  # A kept failure (see fetch.vcl) has a body that is no stream. The restart leads to
  # `error` in recv.vcl, without a look into the cache and without a request.
  if (req.http.Headwater-Path == "stream" && resp.http.Headwater-Shed == "kept") {
    set req.http.Headwater-Shed = "edge";
    restart;
  }

  # The edge's own answers carry the headers for pages of other sites that the origin's
  # answers have. error.vcl cannot write them, because the edges keep a shield's answer
  # for readers of several pages. It holds no secret, so every page may read it.
  if (resp.http.Headwater-Cors) {
    unset resp.http.Headwater-Cors;
    set resp.http.Access-Control-Allow-Origin = "*";
    if (req.http.Origin) {
      set resp.http.Access-Control-Allow-Origin = req.http.Origin;
      set resp.http.Access-Control-Allow-Credentials = "true";
      set resp.http.Vary = "Origin";
    }
    set resp.http.Access-Control-Expose-Headers = "Headwater-Shed, Headwater-Response, Headwater-Fresh";
  }
}

if (req.http.Headwater-Path && fastly.ff.visits_this_service == 0) {
  set var.headwater_status = {""headwater-edge""};
  if (fastly_info.state ~ "^(HIT-SYNTH|ERROR|BG-ERROR)") {
    set var.headwater_status = var.headwater_status "; detail=synthetic";
  } elseif (fastly_info.state ~ "^HIT-STALE") {
    set var.headwater_status = var.headwater_status "; hit; detail=stale";
  } elseif (fastly_info.state ~ "-REFRESH") {
    set var.headwater_status = var.headwater_status "; fwd=stale";
  } elseif (fastly_info.state ~ "^HIT($|-)") {
    set var.headwater_status = var.headwater_status "; hit";
  } elseif (fastly_info.state ~ "^(PASS|HITPASS)") {
    set var.headwater_status = var.headwater_status "; fwd=bypass";
  } elseif (fastly_info.state ~ "^MISS") {
    set var.headwater_status = var.headwater_status "; fwd=uri-miss";
    # Waited for another client's request instead of making one.
    if (fastly_info.state ~ "-WAIT") {
      set var.headwater_status = var.headwater_status "; collapsed";
    }
  }

  # A list: caches nearer the origin stand before us.
  if (resp.http.Cache-Status) {
    set resp.http.Cache-Status = resp.http.Cache-Status ", " var.headwater_status;
  } else {
    set resp.http.Cache-Status = var.headwater_status;
  }

  # The object is the crowd's, but this copy of it is one reader's own: a browser
  # or proxy that kept it would not ask for a token.
  if (req.http.Headwater-Access ~ "^edge ") {
    set resp.http.Cache-Control = "private, no-store";
    unset resp.http.Expires;
  }

  # For purging, not for clients.
  unset resp.http.Surrogate-Key;
  unset resp.http.Cache-Tag;
}
