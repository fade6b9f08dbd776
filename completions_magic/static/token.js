// A token as text, for views of tokens. Text from a model enters the page as text nodes and no other way.

const BLANKS = { " ": "·", "\n": "↵", "\t": "⇥" };

// A token on its own: its blanks are visible, and the bytes of an unfinished character are numbers.
function putToken(parent, token) {
  const bytes = /^bytes:((?:\\x[0-9a-f]{2})+)$/i.exec(token);
  const shown = bytes ? `‹${bytes[1].slice(2).replaceAll("\\x", " ")}›` : token || "‹nothing›";
  for (const piece of bytes || !token ? [shown] : shown.split(/([ \n\t])/)) {
    if (bytes || !token || BLANKS[piece]) element("span", "token-mark", parent, BLANKS[piece] ?? piece);
    else if (piece) parent.append(piece);
  }
}

function spoken(token) {
  return token.trim() || (token.includes("\n") ? "line break" : token ? "blank" : "nothing");
}

