// A React page with the newest value of each key of a channel, and whether it is live.

import { createRoot } from "react-dom/client";
import { useHeadwater } from "headwater/react";

const URL = import.meta.env.VITE_HEADWATER_URL ?? "http://127.0.0.1:8080";

function Orders() {
  const { state, status } = useHeadwater(URL, ["orders"]);
  return (
    <main>
      <p role="status">{status}</p>
      <ul>
        {[...state].map(([key, data]) => <li key={key}>{key}: {JSON.parse(data).status}</li>)}
      </ul>
    </main>
  );
}

createRoot(document.querySelector("#root")).render(<Orders />);
