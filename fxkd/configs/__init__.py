"""Files of other tools, and what is in them said in fxkd's keys; nothing is executed unless that is asked for."""
