// Follows a stream with okhttp-eventsource until its channel ends, and prints every message that the
// library delivers as a line of JSON. Argument: the URL.

import com.launchdarkly.eventsource.ConnectStrategy;
import com.launchdarkly.eventsource.ErrorStrategy;
import com.launchdarkly.eventsource.EventSource;
import com.launchdarkly.eventsource.MessageEvent;
import java.io.PrintStream;
import java.net.URI;
import java.nio.charset.StandardCharsets;
import java.util.concurrent.TimeUnit;

class Client {
  public static void main(String[] arguments) {
    PrintStream output = new PrintStream(System.out, true, StandardCharsets.UTF_8);
    // Longer than the pause between two heartbeats of the origin.
    var connect = ConnectStrategy.http(URI.create(arguments[0])).readTimeout(15, TimeUnit.SECONDS);
    var settings = new EventSource.Builder(connect).errorStrategy(ErrorStrategy.alwaysContinue());
    try (EventSource source = settings.build()) {
      for (MessageEvent event : source.messages()) {
        if (event.getEventName().equals("message")) {
          String id = quote(event.getLastEventId());
          output.println("{\"id\":" + id + ",\"data\":" + quote(event.getData()) + "}");
        }
        if (event.getEventName().equals("end")) {
          return;
        }
      }
    }
    System.exit(1);
  }

  /** The text as a JSON string. */
  private static String quote(String text) {
    StringBuilder quoted = new StringBuilder("\"");
    for (char c : text.toCharArray()) {
      if (c == '"' || c == '\\') {
        quoted.append('\\').append(c);
      } else if (c < ' ') {
        quoted.append(String.format("\\u%04x", (int) c));
      } else {
        quoted.append(c);
      }
    }
    return quoted.append('"').toString();
  }
}
